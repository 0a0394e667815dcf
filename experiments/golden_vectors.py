"""Golden vectors of the official PyTorch models: the rule for the weights, the inputs and the stored outputs.

README.md in the folder of the vectors gives the rule and lists the files. `fill` and `images` do not need the folder.
"""

import json
import math
import pathlib
import zlib

import numpy as np


def state_dict_shapes(folder: pathlib.Path, name: str) -> dict[str, tuple[int, ...]]:
    """Returns official name -> torch shape of a model such as "cls_T" or "seg_tiny".

    The entries are in the official order and include the buffers.
    """
    shapes = json.loads((folder / f"state_dict_{name}.json").read_text())
    return {entry: tuple(shape) for entry, shape in shapes.items()}


def load(folder: pathlib.Path, name: str) -> dict[str, np.ndarray]:
    """Returns the stored outputs of one case, such as "cls_T_eval_224"."""
    with np.load(folder / f"{name}.npz") as arrays:
        return dict(arrays)


def images(shape: tuple[int, int, int, int], seed: int) -> np.ndarray:
    """Returns a standard normal input of `shape` (B, 3, H, W), float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def fill(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Returns weights and buffers by the rule, for torch names and shapes.

    Each array depends only on its own name and shape.
    """
    return {name: _fill_one(name, tuple(shape)) for name, shape in shapes.items()}


def _fill_one(name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    z = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if name.endswith("running_var"):
        value = 1 + 0.5 * np.tanh(z)
    elif name.endswith("running_mean"):
        value = 0.1 * z
    elif name.endswith("pos_embed"):
        value = z
    elif name.endswith(("rate1", "rate2")):
        value = 0.5 + 0.1 * z
    elif len(shape) == 1:
        value = 1 + 0.1 * z if name.endswith(".weight") else 0.1 * z
    else:
        value = z * math.sqrt(1 / math.prod(shape[1:]))
    return value.astype(np.float32)
