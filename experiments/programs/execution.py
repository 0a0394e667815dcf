"""What a compiled program runs: its instructions in their order, those of loops as often as these run.

Asynchronous instructions come in pairs, `...-start` and `...-done`; their results belong to the first of them.
"""

from collections.abc import Iterator
from typing import NamedTuple

from experiments.programs.hlo import Array, Computation, Instruction, Module


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


def _inner(module: Module, instruction: Instruction) -> Iterator[tuple[str, int]]:
    """Yields the computations that an instruction runs in main memory, and how often it runs each."""
    called = instruction.called
    if instruction.opcode == "while":
        yield called["body"][0], trips(module, module.computations[called["condition"][0]])
    elif instruction.opcode in ("call", "async-start"):
        yield from ((name, 1) for name in called.get("to_apply", []) + called.get("calls", []))
    elif instruction.opcode == "conditional":
        # One of the branches runs; the first stands for it.
        branches = called.get("branch_computations") or called["true_computation"]
        yield branches[0], 1


def trips(module: Module, condition: Computation) -> int:
    """Returns how often a loop runs: its counter starts at 0 and is compared with the constant of its condition."""
    instructions = list(condition.instructions.values())
    # On GPUs the comparison and its constant are a fusion.
    for instruction in condition.instructions.values():
        if instruction.opcode == "fusion":
            instructions += fused(module, instruction).instructions.values()
    found = [
        int(instruction.literal)
        for instruction in instructions
        if instruction.opcode == "constant" and instruction.literal.isdigit()
    ]
    return max(found, default=1)


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
