"""Trained weights that ship with the package: `seaformer_jax/pretrained/<name>.{safetensors,json,md}`.

The safetensors file holds the parameters and BatchNorm statistics under this project's own paths, such as
`params/backbone/stem/conv/kernel`: matrices in float16, vectors in float32. The JSON file, the card, says what they
are: model, task, config, class names, data set, licence and score. The Markdown file is the card for people.
`experiments/package_weights.py` writes all three.
"""

import importlib.resources
import pathlib
from typing import Any

import numpy as np
import safetensors.numpy
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from seaformer_jax import json_files
from seaformer_jax.errors import UserError, suggest
from seaformer_jax.models.variables import split_model, update_model
from seaformer_jax.types import Tree

FOLDER = pathlib.Path(str(importlib.resources.files("seaformer_jax") / "pretrained"))


def list_weights() -> list[str]:
    """Returns the names that `create_model(..., weights=name)` knows, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def read_card(name: str) -> dict[str, Any]:
    """Returns what is known about the weights `name`.

    Returns:
        `model` and `task` as for `create_model`; `class_names`; `config` (dotted key -> value, for what differs from
        the task's default config); `step`, `data`, `licence`, `score`, and how the weights were made.

    Raises:
        UserError: There are no such weights.
    """
    known = list_weights()
    if name not in known:
        raise UserError(f"unknown weights {name!r}; known: {', '.join(known)}.{suggest(name, known)}")
    return json_files.read(FOLDER / f"{name}.json")


def load_into(model: nnx.Module, name: str) -> None:
    """Puts the weights `name` into `model`, as float32.

    Raises:
        UserError: There are no such weights, or they belong to another model.
    """
    read_card(name)  # An unknown name is an error that lists the known ones.
    arrays = safetensors.numpy.load_file(FOLDER / f"{name}.safetensors")
    _check_shapes(_flat(*split_model(model)), arrays, name)
    trees = unflatten_dict({path: value.astype(np.float32) for path, value in arrays.items()}, sep="/")
    update_model(model, *(nnx.restore_int_paths(trees[kind]) for kind in ("params", "batch_stats")))


def save(
    params: Tree, batch_stats: Tree, card: dict[str, Any], name: str, folder: pathlib.Path = FOLDER
) -> None:
    """Writes weights and their card, for `load_into` and `read_card` to read.

    Float16 halves the file. Vectors (biases, BatchNorm) stay in float32: they are few, and a small running variance
    would lose its digits.
    """
    arrays = {
        path: np.asarray(value, np.float16 if value.ndim > 1 else np.float32)
        for path, value in _flat(params, batch_stats).items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file(arrays, folder / f"{name}.safetensors")
    json_files.write(folder / f"{name}.json", card)


def _flat(params: Tree, batch_stats: Tree) -> dict[str, Any]:
    """Returns path -> array. Flax numbers the modules of a list with integers, which become digits in the path."""
    paths = flatten_dict({"params": params, "batch_stats": batch_stats})
    return {"/".join(map(str, path)): value for path, value in paths.items()}


def _check_shapes(expected: dict[str, Any], found: dict[str, np.ndarray], name: str) -> None:
    shapes = [{path: value.shape for path, value in arrays.items()} for arrays in (expected, found)]
    differing = sorted(path for path, _ in shapes[0].items() ^ shapes[1].items())
    if differing:
        path = differing[0]
        raise UserError(
            f"the weights {name!r} do not fit the model: {len(set(differing))} arrays differ, e.g. {path}: expected "
            f"{shapes[0].get(path)}, found {shapes[1].get(path)}; create the model that their card names"
        )
