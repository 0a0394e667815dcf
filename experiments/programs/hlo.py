"""Reads the text of a compiled XLA program: its computations, instructions and arrays with their layouts.

The grammar is that of XLA's HLO text (openxla.org/xla/shapes, openxla.org/xla/tiled_layout). An instruction is a line

    %name = bf16[256,16]{0,1:T(8,128)(2,1)S(1)} fusion(%x, %y), kind=kLoop, calls=%z, metadata={op_name="..."}
"""

import math
import re
from typing import NamedTuple

# Bytes of an element; four-bit types are stored in a byte each unless a layout says otherwise.
_BYTES = {"pred": 1, "bf16": 2, "f16": 2, "f32": 4, "f64": 8, "c64": 8, "c128": 16}
_BYTES |= {f"{sign}{bits}": max(bits // 8, 1) for sign in "su" for bits in (2, 4, 8, 16, 32, 64)}
_ARRAY = re.compile(r"(\w+)\[([\d,<=]*)\](?:\{([^}]*)\})?")
_TILE = re.compile(r"T\(([\d,]+)\)")
_SPACE = re.compile(r"S\((\d+)\)")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.-]+) = (.*)$")
_COMMENT = re.compile(r"/\*.*?\*/")
_OPERAND = re.compile(r"%([\w.-]+)")
_OP_NAME = re.compile(r'op_name="((?:[^"\\]|\\.)*)"')
_CALLED = re.compile(r"(\w+)=(?:%([\w.-]+)|\{(%[^}]*)\})")


class Array(NamedTuple):
    """An array as it lies in memory.

    Attributes:
        dtype: Type of the elements, in XLA's words: "bf16", "f32", "s32", "pred", ...
        dims: Sizes of the axes.
        order: Axes from the one whose neighbours lie side by side to the slowest one (minor to major).
        tile: Sizes of the tile that the last axes of the layout are rounded up to; () for none.
        space: Memory space: 0 is the device's main memory (HBM), 1 the TPU's fast memory (VMEM).
    """

    dtype: str
    dims: tuple[int, ...]
    order: tuple[int, ...] = ()
    tile: tuple[int, ...] = ()
    space: int = 0

    @property
    def raw_bytes(self) -> int:
        """Bytes of the elements alone."""
        return math.prod(self.dims) * _BYTES.get(self.dtype, 0)

    @property
    def padded_bytes(self) -> int:
        """Bytes in memory: the axes that lie innermost are rounded up to whole tiles.

        Further tiles of a layout, such as (2,1) in `T(8,128)(2,1)`, divide the first one and add nothing.
        """
        if not self.tile:
            return self.raw_bytes
        sizes = [self.dims[axis] for axis in self.order]  # The innermost axis first.
        sizes += [1] * (len(self.tile) - len(sizes))
        for position, multiple in enumerate(reversed(self.tile)):
            sizes[position] = -(-sizes[position] // multiple) * multiple
        return math.prod(sizes) * _BYTES.get(self.dtype, 0)


class Instruction(NamedTuple):
    """One instruction.

    Attributes:
        name: Its name, unique in the computation.
        opcode: What it does, such as "fusion", "copy-start" or "all-reduce".
        elements: The elements of its result; each is a list of arrays, because tuples may be nested.
        operands: Names of the instructions whose results it takes.
        called: Role -> names of the computations it calls, such as {"body": ["region_1"]}.
        op_name: Where it comes from in the JAX program; "" if XLA does not say.
        target: Name of the library function of a custom call, else "".
        literal: Text between the parentheses, e.g. the value of a constant.
    """

    name: str
    opcode: str
    elements: list[list[Array]]
    operands: list[str]
    called: dict[str, list[str]]
    op_name: str
    target: str
    literal: str

    @property
    def arrays(self) -> list[Array]:
        """All arrays of the result."""
        return [array for element in self.elements for array in element]


class Computation(NamedTuple):
    """Instructions by name, in their order of execution, and the name of the one that is the result."""

    instructions: dict[str, Instruction]
    root: str


class Module(NamedTuple):
    """All computations by name, and the name of the one where execution starts."""

    computations: dict[str, Computation]
    entry: str


def parse(text: str) -> Module:
    """Returns the program that `text`, of `jax.stages.Compiled.as_text`, describes."""
    computations: dict[str, Computation] = {}
    entry = current = ""
    for line in text.splitlines():
        if header := _HEADER.match(line):
            current = header[2]
            computations[current] = Computation({}, "")
            entry = current if header[1] else entry
        elif (found := _INSTRUCTION.match(line)) and current:
            instruction = _instruction(found[2], _COMMENT.sub("", found[3]))
            computations[current].instructions[instruction.name] = instruction
            if found[1]:
                computations[current] = computations[current]._replace(root=instruction.name)
    return Module(computations, entry)


def _instruction(name: str, text: str) -> Instruction:
    """Reads `SHAPE OPCODE(OPERANDS), ATTRIBUTES`."""
    end = _balanced(text) if text.startswith("(") else text.index(" ")
    shape, (opcode, rest) = text[:end], text[end:].strip().split("(", 1)
    end = _balanced("(" + rest) - 2
    literal, attributes = rest[:end], rest[end + 1 :]
    op_name, target = _OP_NAME.search(attributes), re.search(r'custom_call_target="([^"]*)"', attributes)
    called = {role: _OPERAND.findall(several) or [one] for role, one, several in _CALLED.findall(attributes)}
    return Instruction(
        name,
        opcode,
        elements(shape),
        _OPERAND.findall(literal),
        called,
        op_name[1].replace("\\'", "'") if op_name else "",
        target[1] if target else "",
        literal,
    )


def elements(shape: str) -> list[list[Array]]:
    """Returns the elements of a shape: one for an array, several for a tuple such as `(f32[2], (s32[], pred[]))`."""
    parts = _split(shape[1:-1]) if shape.startswith("(") else [shape]
    return [[_array(found) for found in _ARRAY.finditer(part)] for part in parts]


def _array(found: re.Match) -> Array:
    dtype, dims, layout = found[1], found[2].replace("<=", ""), found[3] or ""
    order = tuple(int(axis) for axis in layout.split(":")[0].split(",") if axis)
    tile, space = _TILE.search(layout), _SPACE.search(layout)
    return Array(
        dtype,
        tuple(int(size) for size in dims.split(",") if size),
        order,
        tuple(int(size) for size in tile[1].split(",")) if tile else (),
        int(space[1]) if space else 0,
    )


def _balanced(text: str) -> int:
    """Returns the position after the bracket that closes the one at the start of `text`."""
    depth = 0
    for position, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return position + 1
    raise ValueError(f"a bracket is not closed in the program text: {text[:80]}")


def _split(text: str) -> list[str]:
    """Splits at the commas that are in no bracket."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]
