"""Our parameters under the official PyTorch names, and back; NumPy arrays on both sides."""

import collections
from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from convert.names import Entry, entries
from seaformer_jax.errors import UserError

_COUNTER = "num_batches_tracked"
_BACKBONE = "backbone."
_HEADS = ("linear.", "decode_head.", "upsample.")  # Whatever is not the backbone's.
_CLASSIFIERS = {"classification": "linear.weight", "segmentation": "decode_head.conv_seg.weight"}


class Matching(NamedTuple):
    """Names of a state dict against those of a model."""

    matched: list[str]
    missing: list[str]  # the model has them, the state dict does not
    unexpected: list[str]  # the state dict has them, the model does not
    misshaped: list[str]  # "name: found shape, expected shape"

    def __str__(self) -> str:
        """One line with the first names of each kind."""
        parts = [f"{len(self.matched)} names match"]
        for kind in ("missing", "unexpected", "misshaped"):
            if names := getattr(self, kind):
                shown = ", ".join(names[:5]) + (f", and {len(names) - 5} more" if len(names) > 5 else "")
                parts.append(f"{len(names)} {kind} ({shown})")
        return "; ".join(parts)

    def listing(self) -> str:
        """All names, a line for each kind; of those that match, how many lie in which part of the model."""
        parts = collections.Counter(name.removeprefix(_BACKBONE).split(".")[0] for name in self.matched)
        lines = [f"{len(self.matched)} matched: {', '.join(f'{part} {n}' for part, n in parts.items())}"]
        for kind in ("missing", "unexpected", "misshaped"):
            names = getattr(self, kind)
            lines.append(f"{len(names)} {kind}: {', '.join(names)}" if names else f"0 {kind}")
        return "\n".join(lines)


def to_torch(model: nnx.Module, batches_tracked: int = 0) -> dict[str, np.ndarray]:
    """Returns the state dict of `model`: official name -> float32 array in PyTorch's layout.

    Args:
        model: of `seaformer_jax.create_model`.
        batches_tracked: value of BatchNorm's `num_batches_tracked`, which PyTorch wants beside the statistics
          and uses only where its momentum is None.
    """
    values = _variables(model)
    state_dict = {}
    for entry in _entries(model):
        state_dict[entry.name] = entry.to_torch(np.asarray(values[entry.path][...], np.float32))
        if entry.name.endswith("running_var"):
            state_dict[_counter(entry)] = np.asarray(batches_tracked, np.int64)
    return state_dict


def from_torch(model: nnx.Module, state_dict: Mapping[str, np.ndarray]) -> None:
    """Puts `state_dict` (official names; arrays or tensors) into `model`, in place.

    Raises:
        ValueError: a name is missing or unexpected, or a shape differs; the message lists them and `model` is
          left as it was.
    """
    matching = match(model, state_dict)
    if matching.missing or matching.unexpected or matching.misshaped:
        raise UserError(f"the checkpoint is of another model; choose the config of its size: {matching}")
    _assign(model, state_dict, matching.matched)


def load_matching(model: nnx.Module, state_dict: Mapping[str, np.ndarray]) -> Matching:
    """Puts the entries of `state_dict` that fit by name and shape into `model`; returns what fitted.

    For fine-tuning: a head of another class count or task keeps its fresh values.

    Raises:
        UserError: nothing fits.
    """
    matching = match(model, state_dict)
    if not matching.matched:
        raise UserError(f"nothing in the checkpoint fits the model: {matching}")
    _assign(model, state_dict, matching.matched)
    return matching


def class_count(state_dict: Mapping[str, np.ndarray], task: str) -> int:
    """Returns how many classes the model of `state_dict` tells apart; UserError where it is none of `task`."""
    head = _CLASSIFIERS[task]
    shape = np.shape(state_dict.get(head))
    if len(shape) in (2, 4):
        return shape[0]
    names = ", ".join([*list(state_dict)[:5], "..."])
    found = f"has the shape {shape}" if head in state_dict else "is missing"
    raise UserError(
        f"the checkpoint is of another model than one for {task}: {head} [classes, channels] {found}; its "
        f"{len(state_dict)} names are {names}"
    )


def head_width(state_dict: Mapping[str, np.ndarray], task: str) -> int:
    """Returns the channels that the last layer reads of a state dict that `class_count` takes."""
    return np.shape(state_dict[_CLASSIFIERS[task]])[1]


def in_backbone(name: str) -> bool:
    """Whether `name` is a weight of the backbone: neither of the head nor one of BatchNorm's counters."""
    return not name.startswith(_HEADS) and not name.endswith(_COUNTER)


def is_adaptive(name: str) -> bool:
    """Whether `name` makes the weights of SeaFormer++'s squeezing and expanding: at 0 the model is the ICLR one."""
    return name.endswith((".squeeze_map.weight", ".expand_map.weight"))


def with_backbone_of(model: nnx.Module, state_dict: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Returns `state_dict` with the names that the backbone has in `model`.

    A classifier is its own backbone; in a segmentation model the same names stand behind "backbone.".
    """
    if not any(entry.name.startswith(_BACKBONE) for entry in _entries(model)):
        return state_dict
    return {
        name if name.startswith((_BACKBONE, *_HEADS)) else _BACKBONE + name: value
        for name, value in state_dict.items()
    }


def match(model: nnx.Module, state_dict: Mapping[str, np.ndarray]) -> Matching:
    """Compares names and shapes; BatchNorm's counters count as names but carry no weight of their own."""
    expected = {entry.name: entry.torch_shape for entry in _entries(model)}
    counters = {_counter(entry) for entry in _entries(model) if entry.name.endswith("running_var")}
    found = {name: tuple(np.shape(value)) for name, value in state_dict.items()}
    return Matching(
        matched=[name for name, shape in expected.items() if found.get(name) == shape],
        missing=sorted((expected.keys() | counters) - found.keys()),
        unexpected=sorted(found.keys() - expected.keys() - counters),
        misshaped=[
            f"{name}: found {found[name]}, expected {shape}"
            for name, shape in expected.items()
            if name in found and found[name] != shape
        ],
    )


def _assign(model: nnx.Module, state_dict: Mapping[str, np.ndarray], names: list[str]) -> None:
    variables, wanted = _variables(model), set(names)
    for entry in _entries(model):
        if entry.name in wanted:
            value = entry.from_torch(np.asarray(state_dict[entry.name], np.float32))
            variables[entry.path][...] = jnp.asarray(value)


def _entries(model: nnx.Module) -> list[Entry]:
    return entries({path: variable.shape for path, variable in _variables(model).items()})


def _variables(model: nnx.Module) -> dict[tuple, nnx.Variable]:
    """Path -> the model's own variable, parameters and statistics."""
    return {path: node for path, node in nnx.iter_graph(model) if isinstance(node, nnx.Param | nnx.BatchStat)}


def _counter(entry: Entry) -> str:
    return entry.name.removesuffix("running_var") + _COUNTER
