"""Tells which operators of a .tflite file LiteRT's GPU delegate leaves to the processor.

The operators and conditions are those of `tflite/tools/versioning/gpu_compatibility.cc` in LiteRT's
repository (commit 007226f), as far as exports have them. LiteRT's own `ModelAnalyzer` no longer applies them: with
`gpu_compatibility` it calls every file compatible, whatever is in it. A phone's driver may still refuse what the
rules allow.
"""

import collections
from pathlib import Path
from typing import Any

# Whatever the shapes of their tensors.
_ELEMENTWISE = (
    "ABS ADD DIV EXP GELU HARD_SWISH LOGISTIC MAXIMUM MINIMUM MUL NEG POW RSQRT SQRT SQUARE SUB TANH"
)
_LAYERS = (
    "AVERAGE_POOL_2D BATCH_MATMUL CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE FULLY_CONNECTED "
    "LEAKY_RELU MAX_POOL_2D MEAN PACK PRELU QUANTIZE RELU RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR "
    "RESIZE_NEAREST_NEIGHBOR SOFTMAX SPACE_TO_DEPTH SPLIT SPLIT_V SUM TILE TRANSPOSE TRANSPOSE_CONV"
)
_TAKEN = frozenset(f"{_ELEMENTWISE} {_LAYERS}".split())
# Only for tensors of three or four axes.
_OF_IMAGES = frozenset(("SLICE", "STRIDED_SLICE", "PAD", "PADV2", "MIRROR_PAD"))
_BROADCAST = frozenset(("ADD", "MUL"))


def outside(path: Path) -> dict[str, int]:
    """Returns the operators of the file that the GPU delegate does not take: name -> count."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    (graph,) = model.subgraphs
    found = collections.Counter()
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        name = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        if not _takes(name, operator, graph):
            found[name] += 1
    return dict(found)


def _takes(name: str, operator: Any, graph: Any) -> bool:
    shapes = [list(graph.tensors[index].shape) for index in operator.inputs if index >= 0]
    if name in _OF_IMAGES:
        return len(shapes[0]) in (3, 4)
    if name in _BROADCAST:
        return _broadcasts(*shapes)
    return name in _TAKEN


def _broadcasts(first: list[int], second: list[int]) -> bool:
    """Tells if the delegate adds or multiplies tensors of these shapes; equal numbers of axes are always fine."""
    short, long = sorted((first, second), key=len)
    if len(short) <= 1 or len(short) == len(long):
        return True
    if len(long) != 4:
        return False
    if len(short) == 3:
        return long[0] == 1
    return (long[0] == 1 and short == [1, 1]) or [long[0], long[3]] == short


def verdict(path: Path) -> str:
    """Returns what the report says of the GPU delegate."""
    left = outside(path)
    rules = "By the rules of LiteRT (its `gpu_compatibility.cc`) the GPU delegate"
    end = "It has not been run on a GPU."
    if not left:
        return f"{rules} takes every operator of the file. {end}"
    names = ", ".join(f"{count} {name}" for name, count in left.items())
    return f"{rules} leaves operators to the processor: {names}. {end}"
