"""Maps the arrays of Swin to the official PyTorch names, those of microsoft/Swin-Transformer.

The norms of the four outputs are `norm0` to `norm3`, as in the authors' code for dense prediction. Their code for
classification has the last of them only, and calls it `norm`; `completed` reads its checkpoints.
"""

import re
from collections.abc import Mapping

import numpy as np

from convert import attention_names
from convert.attention_names import Layout

# Tables that the authors' modules compute from their window, and store.
_COMPUTED = re.compile(r".*\.(attn\.relative_position_index|attn_mask)")


def completed(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the state dict of an official Swin with the names of `locate`; one of another model stays as it is.

    Computed tables are left out. If it is of a classifier, `norm` becomes `norm3`, and `norm0` to `norm2`, which no
    classifier has trained, get the values of a new LayerNorm.
    """
    if "patch_embed.proj.weight" not in state_dict:
        return dict(state_dict)
    found = {name: array for name, array in state_dict.items() if not _COMPUTED.fullmatch(name)}
    for leaf, fill in (("weight", 1), ("bias", 0)):
        if (last := found.pop(f"norm.{leaf}", None)) is not None:
            found[f"norm3.{leaf}"] = last
            for stage in range(3):  # The width doubles from stage to stage.
                found[f"norm{stage}.{leaf}"] = np.full(last.shape[0] >> (3 - stage), fill, last.dtype)
    return found


def locate(path: tuple, shape: tuple[int, ...]) -> tuple[str, Layout]:
    """Returns the official name and the layout of the array at `path` of a classifier.

    Args:
        path: For example ("backbone", "stages", 2, "blocks", 0, "attention", "qkv", "kernel").
        shape: Shape in JAX.
    """
    prefix, inner = _split(path[1:] if path[0] == "backbone" else path)
    name, layout = in_block(inner, shape)
    return f"{prefix}.{name}", layout


def _split(path: tuple) -> tuple[str, tuple]:
    """Returns the official name of the part that `path` leads into, and the path inside the part."""
    match path:
        case ("patch", "norm", leaf):
            return "patch_embed.norm", (leaf,)
        case ("patch", leaf):
            return "patch_embed.proj", (leaf,)
        case ("stages", stage, "merge", *inner):
            return f"layers.{stage - 1}.downsample", tuple(inner)  # There it ends the stage before.
        case ("stages", stage, "blocks", block, *inner):
            return f"layers.{stage}.blocks.{block}", tuple(inner)
        case ("norms", stage, leaf):
            return f"norm{stage}", (leaf,)
    return path[0], path[1:]  # The head, and the up-sampling module of a distilled student.


def in_block(path: tuple, shape: tuple[int, ...]) -> tuple[str, Layout]:
    """As `locate`, for the array of a transformer block or of a bare attention module."""
    if path[0] != "attention":
        return attention_names.locate(path, shape)
    name, layout = attention_names.locate(path[1:], shape)
    return f"attn.{name}", layout
