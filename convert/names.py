"""Maps the parameter paths of the JAX models to the official PyTorch names and shapes.

The names of classifiers come from the official `seaformer-cls/seaformer.py`. Segmentation models have the prefix
"backbone." before the names of `seaformer-seg/mmseg/models/backbones/seaformer.py`, and the prefix "decode_head."
before those of `decode_heads/light_head.py`. Detectors have the same backbone, and the names of mmdetection's `FPN`
and `RetinaHead` after "neck." and "bbox_head.".

A path is a tuple such as ("backbone", "stages", 3, "sea", 0, "attention", "to_q", "conv", "kernel").
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

_MOBILE = ("expand", "depthwise", "project")
_SEA = {
    "attention/to_q": "attn.to_q",
    "attention/to_k": "attn.to_k",
    "attention/to_v": "attn.to_v",
    "attention/project": "attn.proj.1",
    "attention/row/encode": "attn.proj_encode_row.1",
    "attention/row/query_position": "attn.pos_emb_rowq",
    "attention/row/key_position": "attn.pos_emb_rowk",
    "attention/column/encode": "attn.proj_encode_column.1",
    "attention/column/query_position": "attn.pos_emb_columnq",
    "attention/column/key_position": "attn.pos_emb_columnk",
    # The official code has neither SeaFormer++ nor the ablations of detail enhancement; these names are ours.
    "attention/squeeze/map": "attn.squeeze_map",
    "attention/expand/map": "attn.expand_map",
    "attention/to_detail": "attn.to_detail",
    "attention/detail_depthwise": "attn.dwconv",
    "attention/detail_pointwise": "attn.pwconv",
    "ffn/expand": "mlp.fc1",
    "ffn/depthwise": "mlp.dwconv",
    "ffn/project": "mlp.fc2",
}
_HEAD = {
    "classify": "conv_seg",
    "linear_fuse": "linear_fuse",
    "local": "local_embedding",
    "context": "global_act",
}
_DETECTOR = {
    ("neck", "lateral"): "neck.lateral_convs",
    ("neck", "output"): "neck.fpn_convs",
    ("head", "class_tower"): "bbox_head.cls_convs",
    ("head", "box_tower"): "bbox_head.reg_convs",
    ("head", "class_output"): "bbox_head.retina_cls",
    ("head", "box_output"): "bbox_head.retina_reg",
}
_LEAVES = {
    "conv/kernel": "c.weight",
    "bn/scale": "bn.weight",
    "bn/bias": "bn.bias",
    "bn/mean": "bn.running_mean",
    "bn/var": "bn.running_var",
    "kernel": "weight",
    "bias": "bias",
    "table": "pos_embed",
}
_HEAD_LEAVES = _LEAVES | {"conv/kernel": "conv.weight"}  # The head uses mmcv's `ConvModule`, not `Conv2d_BN`.


class Entry(NamedTuple):
    """One array of a model, in JAX and in PyTorch.

    Attributes:
        path: Path of the variable in the JAX model.
        name: Official PyTorch name.
        shape: Shape in JAX.
        axes: Axes of the JAX array in PyTorch's order.
        torch_shape: Shape in PyTorch: the permuted shape, plus the axes of size 1 that only PyTorch has.
    """

    path: tuple
    name: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    torch_shape: tuple[int, ...]

    def to_torch(self, value: np.ndarray) -> np.ndarray:
        """Returns `value`, an array in JAX's layout, in PyTorch's layout."""
        return np.ascontiguousarray(np.transpose(value, self.axes).reshape(self.torch_shape))

    def from_torch(self, value: np.ndarray) -> np.ndarray:
        """Returns `value`, an array in PyTorch's layout, in JAX's layout."""
        # First drop the axes of size 1, then undo the permutation.
        permuted = [self.shape[axis] for axis in self.axes]
        return np.transpose(value.reshape(permuted), np.argsort(self.axes))


def entries(shapes: Mapping[tuple, tuple[int, ...]]) -> list[Entry]:
    """Returns one `Entry` per array of a model.

    Args:
        shapes: Path -> shape in JAX, for all arrays of the model; the names depend on which paths exist.
    """
    # The official code counts attention stages from 1 (`trans1`), wherever the first one is.
    first_sea = min(path[2] for path in shapes if path[1] == "stages" and path[3] == "sea")
    backbone = "" if ("head", "kernel") in shapes else "backbone."  # Only classifiers have no prefix.
    return [
        Entry(path, _name(path, shapes, first_sea, backbone), shape, *_layout(path, shape))
        for path, shape in shapes.items()
    ]


def _name(path: tuple, shapes: Mapping, first_sea: int, backbone: str) -> str:
    """Returns the official name of the array at `path`."""
    leaf = "/".join(path[-2:]) if path[-2] in ("conv", "bn") else path[-1]
    module = path[: -1 - leaf.count("/")]
    if module == ("head",):
        return f"linear.{_LEAVES[leaf]}"
    if module[:2] in _DETECTOR:
        listed = f".{module[2]}.conv" if len(module) > 2 else ""  # mmcv's `ConvModule` in lists.
        return f"{_DETECTOR[module[:2]]}{listed}.{_LEAVES[leaf]}"
    if module[0] == "upsample":  # The official code has no such module; the names are ours.
        inner = f"block.{_block(module, shapes)}" if module[1] == "block" else module[1]
        return f"upsample.{inner}.{_LEAVES[leaf]}"
    if module[0] == "head":
        return f"decode_head.{_head_module(module)}.{_HEAD_LEAVES[leaf]}"
    return f"{backbone}{_module(module, shapes, first_sea)}.{_LEAVES[leaf]}"


def _head_module(module: tuple) -> str:
    """Returns the official name of a module of the segmentation head, e.g. ("head", "fuse", 0, "local")."""
    if module[1] == "fuse":
        return f"fuse{module[2] + 1}.{_HEAD[module[3]]}"
    return _HEAD[module[1]]


def _block(module: tuple, shapes: Mapping) -> str:
    """Returns the official name of a convolution in an inverted residual, e.g. (..., "mobile", 0, "project")."""
    # Convolutions and activations alternate in one nn.Sequential, hence the 2. Without the expansion convolution
    # the depthwise one is number 0.
    has_expansion = (*module[:-1], "expand", "conv", "kernel") in shapes
    return f"conv.{2 * (_MOBILE.index(module[-1]) - (not has_expansion))}"


def _module(module: tuple, shapes: Mapping, first_sea: int) -> str:
    """Returns the official name of a module of the backbone."""
    if module[1] == "stem":
        return "smb1.stem_block.0"
    stage, kind, index = module[2:5]
    if kind == "mobile":
        return f"smb{stage + 1}.layer{index + 1}.{_block(module, shapes)}"
    return f"trans{stage - first_sea + 1}.transformer_blocks.{index}.{_SEA['/'.join(module[5:])]}"


def _layout(path: tuple, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the (axes, torch_shape) of an array, which follow from its leaf name and its rank."""
    if path[-1] == "table":  # [positions, C] -> [1, C, positions]
        return (1, 0), (1, shape[1], shape[0])
    if len(shape) == 1:
        return (0,), shape
    if len(shape) == 2:  # [in, out] -> [out, in], or [out, in, 1, 1] for a convolution
        # Only the classifier is a linear layer in PyTorch; all other matrices are 1x1 convolutions.
        window = () if path[:-1] == ("head",) else (1, 1)
        return (1, 0), (shape[1], shape[0], *window)
    if len(shape) == 3:  # depthwise [k, k, C] -> [C, 1, k, k]
        return (2, 0, 1), (shape[2], 1, shape[0], shape[1])
    return (3, 2, 0, 1), (shape[3], shape[2], shape[0], shape[1])  # [k, k, in, out] -> [out, in, k, k]
