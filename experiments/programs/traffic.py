"""Counts the bytes of main memory (HBM) that each instruction of a compiled program reads and writes.

An instruction reads each of its operands once and writes its results once; what happens inside a fusion costs
nothing. Arrays in other memory spaces, such as the TPU's VMEM, cost nothing either. Slices count as the part that
moves, not as the array they are cut from. A loop counts as often as its condition says. So the sums are what the chip
moves if no cache helps it, and there is none on a TPU.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

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


def in_memory(arrays: Iterable[Array]) -> Bytes:
    """Returns the bytes of those arrays that lie in main memory."""
    return total(Bytes(array.raw_bytes, array.padded_bytes) for array in arrays if array.space == 0)


class Visit(NamedTuple):
    """An instruction of the program or of one of its loops, the computation it is part of, and how often it runs."""

    instruction: Instruction
    computation: Computation
    times: int


def visits(module: Module, name: str = "", times: int = 1) -> Iterator[Visit]:
    """Yields the instructions that run, from computation `name` on (default: the entry), loops' bodies included.

    Loops and calls themselves are not among them, and fusions are not opened.
    """
    computation = module.computations[name or module.entry]
    for instruction in computation.instructions.values():
        inner = list(_inner(module, instruction))
        for called, count in inner:
            yield from visits(module, called, times * count)
        if not inner:
            yield Visit(instruction, computation, times)


class Cost(NamedTuple):
    """What all runs of an instruction together read and write."""

    visit: Visit
    read: Bytes
    written: Bytes

    @property
    def padded(self) -> int:
        """Bytes read and written, with padding."""
        return self.read.padded + self.written.padded


def costs(module: Module) -> list[Cost]:
    """Returns the costs of all instructions that move something."""
    return [cost for visit in visits(module) if (cost := _cost(module, visit)).padded]


def _cost(module: Module, visit: Visit) -> Cost:
    if visit.instruction.opcode in _FREE or visit.instruction.opcode.endswith("-done"):
        return Cost(visit, Bytes(), Bytes())
    read = _read(module, visit.computation, visit.instruction)
    return Cost(
        visit, read * visit.times, _written(module, visit.computation, visit.instruction) * visit.times
    )


def _inner(module: Module, instruction: Instruction) -> Iterator[tuple[str, int]]:
    """Yields the computations that an instruction runs in main memory, and how often it runs each."""
    called = instruction.called
    if instruction.opcode == "while":
        yield called["body"][0], trips(module.computations[called["condition"][0]])
    elif instruction.opcode in ("call", "async-start"):
        yield from ((name, 1) for name in called.get("to_apply", []) + called.get("calls", []))
    elif instruction.opcode == "conditional":
        # One of the branches runs; the first stands for it.
        branches = called.get("branch_computations") or called["true_computation"]
        yield branches[0], 1


def trips(condition: Computation) -> int:
    """Returns how often a loop runs: its counter starts at 0 and is compared with the constant of its condition."""
    found = [
        int(instruction.literal)
        for instruction in condition.instructions.values()
        if instruction.opcode == "constant" and instruction.literal.isdigit()
    ]
    return max(found, default=1)


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
    inner = fused(module, instruction).instructions.values()
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
        return total(Bytes(array.raw_bytes, array.padded_bytes) for array in results(user)[0])
    if user.operands[0] == operand and user.opcode == "dynamic-update-slice":
        return Bytes()  # It is updated where it lies.
    return whole


def _written(module: Module, computation: Computation, instruction: Instruction) -> Bytes:
    owner, root = computation, instruction
    if instruction.opcode == "fusion":
        owner = fused(module, instruction)
        root = owner.instructions[owner.root]
    written = results(instruction)
    # The results of a fusion with several are the operands of its tuple.
    roots = (
        [owner.instructions[name] for name in root.operands]
        if root.opcode == "tuple"
        else [root] * len(written)
    )
    return total(_new(arrays, root, owner) for arrays, root in zip(written, roots, strict=True))


def _new(result: list[Array], root: Instruction, owner: Computation) -> Bytes:
    """Returns what is written of a result; if it is updated where it lies, only the new part."""
    whole = in_memory(result)
    while root.opcode == "bitcast":
        root = owner.instructions[root.operands[0]]
    if root.opcode != "dynamic-update-slice" or not whole.padded:
        return whole
    update = owner.instructions[root.operands[1]].arrays
    return total(Bytes(array.raw_bytes, array.padded_bytes) for array in update)


def fused(module: Module, instruction: Instruction) -> Computation:
    """Returns what a fusion computes."""
    return module.computations[instruction.called["calls"][0]]


def results(instruction: Instruction) -> list[list[Array]]:
    """Returns the elements of the result that the instruction writes; others are inputs, flags or scratch space."""
    opcode, elements = instruction.opcode, instruction.elements
    if opcode == "copy-start":
        return elements[:1]  # (to, from, flag)
    if opcode.endswith("-start") and opcode != "all-reduce-start":
        return elements[1:2]  # (from, to, flags)
    if instruction.target == "AllocateBuffer":
        return []
    if instruction.target.startswith("__cu"):
        # What cuDNN and cuBLAS reserve is not known to be used.
        return [element for element in elements if element[0].dtype not in ("s8", "u8")]
    return elements
