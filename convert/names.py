"""Maps the parameter paths of the JAX models to the official PyTorch names and shapes.

The names of classifiers come from the official `seaformer-cls/seaformer.py`. Segmentation models have the prefix
"backbone." before the names of `seaformer-seg/mmseg/models/backbones/seaformer.py`, and the prefix "decode_head."
before those of `decode_heads/light_head.py`. Detectors have the same backbone, and the names of mmdetection's `FPN`
and `RetinaHead` after "neck." and "bbox_head.".

The names of Swin, of bare attention modules and of transformer blocks are in `swin_names` and `attention_names`.

A path is a tuple such as ("backbone", "stages", 3, "sea", 0, "attention", "to_q", "conv", "kernel").
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from convert import attention_names, swin_names
from convert.attention_names import LEAVES, Layout, kernel_layout

_MOBILE = ("expand", "depthwise", "project")
_FFN = {"expand": "fc1", "depthwise": "dwconv", "project": "fc2"}
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
_HEAD_LEAVES = LEAVES | {"conv/kernel": "conv.weight"}  # The head uses mmcv's `ConvModule`, not `Conv2d_BN`.


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
    if not any(path[0] == "backbone" for path in shapes):  # A bare attention module or transformer block.
        return [_entry(path, shape, *swin_names.in_block(path, shape)) for path, shape in shapes.items()]
    if ("backbone", "patch", "kernel") in shapes:
        return [_entry(path, shape, *swin_names.locate(path, shape)) for path, shape in shapes.items()]
    # The official code counts attention stages from 1 (`trans1`), wherever the first one is.
    first_sea = min(path[2] for path in shapes if path[1] == "stages" and path[3] == "sea")
    backbone = "" if ("head", "kernel") in shapes else "backbone."  # Only classifiers have no prefix.
    found = []
    for path, shape in shapes.items():
        if "attention" in path:
            prefix = f"{backbone}{_block_name(path, first_sea)}.attn"
            name, layout = attention_names.locate(path[path.index("attention") + 1 :], shape)
            found.append(_entry(path, shape, f"{prefix}.{name}", layout))
        else:
            found.append(_entry(path, shape, _name(path, shapes, first_sea, backbone), _layout(path, shape)))
    return found


def _entry(path: tuple, shape: tuple[int, ...], name: str, layout: Layout) -> Entry:
    return Entry(path, name, shape, *layout)


def _name(path: tuple, shapes: Mapping, first_sea: int, backbone: str) -> str:
    """Returns the official name of the array at `path`."""
    leaf = "/".join(path[-2:]) if path[-2] in ("conv", "bn") else path[-1]
    module = path[: -1 - leaf.count("/")]
    if module == ("head",):
        return f"linear.{LEAVES[leaf]}"
    if module[:2] in _DETECTOR:
        listed = f".{module[2]}.conv" if len(module) > 2 else ""  # mmcv's `ConvModule` in lists.
        return f"{_DETECTOR[module[:2]]}{listed}.{LEAVES[leaf]}"
    if module[0] == "upsample":  # The official code has no such module; the names are ours.
        inner = f"block.{_block(module, shapes)}" if module[1] == "block" else module[1]
        return f"upsample.{inner}.{LEAVES[leaf]}"
    if module[0] == "head":
        return f"decode_head.{_head_module(module)}.{_HEAD_LEAVES[leaf]}"
    return f"{backbone}{_module(module, shapes, first_sea)}.{LEAVES[leaf]}"


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
    return f"{_block_name(module, first_sea)}.mlp.{_FFN[module[-1]]}"


def _block_name(path: tuple, first_sea: int) -> str:
    """Returns the official name of a SeaFormer layer, for a path such as ("backbone", "stages", 3, "sea", 0, ...)."""
    return f"trans{path[2] - first_sea + 1}.transformer_blocks.{path[4]}"


def _layout(path: tuple, shape: tuple[int, ...]) -> Layout:
    """Returns the layout of an array outside attention, which follows from its leaf name and its rank."""
    if len(shape) == 1:
        return (0,), shape
    if len(shape) == 2:  # [in, out] -> [out, in], or [out, in, 1, 1] for a convolution
        # Only the classifier is a linear layer in PyTorch; all other matrices are 1x1 convolutions.
        window = () if path[:-1] == ("head",) else (1, 1)
        return (1, 0), (shape[1], shape[0], *window)
    return kernel_layout(shape)
