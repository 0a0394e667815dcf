"""Counts the bytes of main memory (HBM) that each instruction of a compiled program reads and writes.

An instruction reads each of its operands once and writes its results once; what happens inside a fusion costs
nothing. Arrays in other memory spaces, such as the TPU's VMEM, cost nothing either. Slices count as the part that
moves, not as the array they are cut from. A loop counts as often as its condition says. So the sums are what the chip
moves if no cache helps it, and there is none on a TPU.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from experiments.programs import execution
from experiments.programs.execution import Visit
from experiments.programs.hlo import Array, Computation, Instruction, Module

# These move nothing, or what they move is counted elsewhere: a copy, e.g., where it starts and not where it is done.
_FREE = {
    "parameter",
    "constant",
    "get-tuple-element",
    "tuple",
    "bitcast",
    "after-all",
    "partition-id",
    "replica-id",
}
_FREE |= {"opt-barrier", "optimization-barrier", "async-update"}
_SLICES = {"dynamic-slice", "slice", "slice-start"}
COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "all-to-all",
    "reduce-scatter",
    "collective-permute",
    "ragged-all-to-all",
)


class Bytes(NamedTuple):
    """Bytes of main memory: of the elements alone, and with the padding of the layout's tiles."""

    raw: int = 0
    padded: int = 0

    def __add__(self, other: "Bytes") -> "Bytes":
        return Bytes(self.raw + other.raw, self.padded + other.padded)

    def __mul__(self, times: int) -> "Bytes":
        return Bytes(self.raw * times, self.padded * times)


def total(items: Iterable[Bytes]) -> Bytes:
    return sum(items, Bytes())


def size(arrays: Iterable[Array]) -> Bytes:
    """Returns the bytes of the arrays, wherever they lie."""
    return total(Bytes(array.raw_bytes, array.padded_bytes) for array in arrays)


def in_memory(arrays: Iterable[Array]) -> Bytes:
    """Returns the bytes of those arrays that lie in main memory."""
    return size(array for array in arrays if array.space == 0)


class Cost(NamedTuple):
    """What all runs of an instruction together move.

    Attributes:
        visit: The instruction.
        read: What it reads.
        results: Type of the elements, and what is written, of each array that the instruction writes.
    """

    visit: Visit
    read: Bytes
    results: list[tuple[str, Bytes]]

    @property
    def written(self) -> Bytes:
        return total(size for _, size in self.results)

    @property
    def padded(self) -> int:
        """Bytes read and written, with padding."""
        return self.read.padded + self.written.padded


def costs(module: Module) -> list[Cost]:
    """Returns the costs of all instructions that move something."""
    return [cost for visit in execution.visits(module) if (cost := _cost(module, visit)).padded]


def _cost(module: Module, visit: Visit) -> Cost:
    instruction, computation, times = visit
    if instruction.opcode in _FREE or instruction.opcode.endswith("-done"):
        return Cost(visit, Bytes(), [])
    written = _written(module, computation, instruction)
    read = _read(module, computation, instruction)
    return Cost(visit, read * times, [(dtype, size * times) for dtype, size in written])


def _read(module: Module, computation: Computation, instruction: Instruction) -> Bytes:
    names = dict.fromkeys(instruction.operands)  # Each once.
    return total(_read_of(module, computation.instructions[name], instruction) for name in names)


def _read_of(module: Module, operand: Instruction, instruction: Instruction) -> Bytes:
    """Returns what `instruction` reads of `operand`: slices of it, if that is all it uses."""
    whole = in_memory(operand.arrays)
    if not whole.padded:
        return whole
    parts = [_needed(user, name, whole) for user, name in _users(module, operand.name, instruction)]
    return min(total(parts), whole) if parts else whole


def _users(module: Module, operand: str, instruction: Instruction) -> Iterator[tuple[Instruction, str]]:
    """Yields what uses `operand`, with the name it has there: a fusion's inner instructions, or the instruction."""
    if instruction.opcode != "fusion":
        yield instruction, operand
        return
    inner = execution.fused(module, instruction).instructions.values()
    places = {str(place) for place, name in enumerate(instruction.operands) if name == operand}
    names = {i.name for i in inner if i.opcode == "parameter" and i.literal in places}
    for user in inner:  # In the order of execution, so that a bitcast comes before its own users.
        if user.opcode == "bitcast" and names.intersection(user.operands):
            names.add(user.name)
        else:
            yield from ((user, name) for name in names.intersection(user.operands))


def _needed(user: Instruction, operand: str, whole: Bytes) -> Bytes:
    """Returns what `user` needs of an operand of size `whole`."""
    if user.operands[0] == operand and user.opcode in _SLICES:
        return size(execution.results(user)[0])
    if user.operands[0] == operand and user.opcode == "dynamic-update-slice":
        return Bytes()  # It is updated where it lies.
    return whole


def _written(module: Module, computation: Computation, instruction: Instruction) -> list[tuple[str, Bytes]]:
    """Returns the type of each array that the instruction writes, and the size of what it writes of it."""
    owner, root = computation, instruction
    if instruction.opcode == "fusion":
        owner = execution.fused(module, instruction)
        root = owner.instructions[owner.root]
    elements = execution.results(instruction)
    several = root.opcode == "tuple"  # The results of a fusion with several are the operands of its tuple.
    roots = [owner.instructions[name] for name in root.operands] if several else [root] * len(elements)
    return [
        (array.dtype, _new(array, root, owner))
        for element, root in zip(elements, roots, strict=True)
        for array in element
    ]


def _new(result: Array, root: Instruction, owner: Computation) -> Bytes:
    """Returns what is written of a result; if it is updated where it lies, only the new part."""
    whole = in_memory([result])
    while root.opcode == "bitcast":
        root = owner.instructions[root.operands[0]]
    if root.opcode != "dynamic-update-slice" or not whole.padded:
        return whole
    return size(owner.instructions[root.operands[1]].arrays)
