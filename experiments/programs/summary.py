"""The figures of one compiled program: memory, traffic, layout copies, loops and collectives, all of one chip."""

import collections
from collections.abc import Iterable, Iterator
from typing import Any

from experiments.programs import execution, traffic
from experiments.programs.hlo import Array, Instruction, Module
from experiments.programs.traffic import COLLECTIVES, Cost

_LARGE = 1_000_000  # Bytes from which on a copy counts: those of parameters are many and cost nothing.
_MOST_EXPENSIVE = 10
_MOVERS = ("copy", "transpose", "reshape")


def summarize(module: Module) -> dict[str, Any]:
    """Returns the figures of a program by name, in bytes."""
    costs = traffic.costs(module)
    read, written = traffic.total(cost.read for cost in costs), traffic.total(cost.written for cost in costs)
    floats = [
        (size.padded, cost.visit.times) for cost in costs for dtype, size in cost.results if dtype == "f32"
    ]
    copies = [cost for cost in costs if cost.padded >= _LARGE and _changes_layout(module, cost)]
    return {
        "hbm_padded": read.padded + written.padded,
        "hbm_raw": read.raw + written.raw,
        "written_padded": written.padded,
        "written_raw": written.raw,
        "float32_written": sum(size for size, _ in floats),
        "float32_largest": max((size // times for size, times in floats), default=0),
        "layout_copies": {"count": len(copies), "bytes": sum(cost.padded for cost in copies)},
        "loops": sum(i.opcode == "while" for i in module.computations[module.entry].instructions.values()),
        "collectives": collectives(module),
        "most_expensive": most_expensive(costs),
    }


def _changes_layout(module: Module, cost: Cost) -> bool:
    """Returns whether an instruction only moves an array into another layout.

    A copy between memories keeps the order of the axes, and a `reshape` that moves nothing is a `bitcast`.
    """
    instruction, owner, _ = cost.visit
    if instruction.opcode == "fusion":
        owner = execution.fused(module, instruction)
        instruction = owner.instructions[owner.root]
    if instruction.opcode not in _MOVERS:
        return False
    before, after = owner.instructions[instruction.operands[0]].arrays, instruction.arrays
    return instruction.opcode != "copy" or [a.order for a in before] != [a.order for a in after]


def collectives(module: Module) -> list[dict[str, Any]]:
    """Returns kind, type, number of operations, number of arrays and bytes of the collectives, largest first.

    One operation may carry arrays of several types; it counts for each of them.
    """
    rows: dict[tuple[str, str], collections.Counter] = collections.defaultdict(collections.Counter)
    for instruction, times in _communicating(module):
        kind = instruction.opcode.removesuffix("-start")
        by_type = collections.defaultdict(list)
        for array in _received(instruction):
            by_type[array.dtype].append(array)
        for dtype, arrays in by_type.items():
            size = sum(array.raw_bytes for array in arrays)
            rows[kind, dtype].update(count=times, arrays=times * len(arrays), bytes=times * size)
    table = [{"kind": kind, "dtype": dtype, **counts} for (kind, dtype), counts in rows.items()]
    return sorted(table, key=lambda row: -row["bytes"])


def _communicating(module: Module) -> Iterator[tuple[Instruction, int]]:
    """Yields the collectives and how often they run, those whose arrays are not in main memory included."""
    for instruction, _, times in execution.visits(module):
        fusion = instruction.opcode == "fusion"
        for one in execution.fused(module, instruction).instructions.values() if fusion else [instruction]:
            if one.opcode.removesuffix("-start") in COLLECTIVES:
                yield one, times


def _received(instruction: Instruction) -> list[Array]:
    """Returns the arrays that the collective delivers; those of `(from, to, flags)` are in the second element."""
    if instruction.opcode.endswith("-start") and instruction.opcode != "all-reduce-start":
        return instruction.elements[1]
    return instruction.arrays


def most_expensive(costs: Iterable[Cost]) -> list[dict[str, Any]]:
    """Returns the instructions that move the most bytes, the first the most."""
    ordered = sorted(costs, key=lambda cost: -cost.padded)[:_MOST_EXPENSIVE]
    return [
        {
            "read": cost.read.padded,
            "written": cost.written.padded,
            "times": cost.visit.times,
            "instruction": f"{cost.visit.instruction.opcode} {cost.visit.instruction.name}",
            "result": _largest(cost.visit.instruction),
            "op_name": cost.visit.instruction.op_name,
        }
        for cost in ordered
    ]


def _largest(instruction: Instruction) -> str:
    """Returns type, shape and order of axes of the largest array of the result, e.g. `bf16[8,4]{0,1}`."""
    written = [array for element in execution.results(instruction) for array in element]
    array = max(written, key=lambda array: array.padded_bytes)
    dims, order = (",".join(map(str, axes)) for axes in (array.dims, array.order))
    return f"{array.dtype}[{dims}]{{{order}}}"
