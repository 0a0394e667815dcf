"""Converts the weights of a JAX model to a state dict with the official PyTorch names, and back.

State dicts hold NumPy arrays, so PyTorch is not needed.
"""

import collections
from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from convert.names import Entry, entries
from seaformer_jax.detection.anchors import PER_CELL
from seaformer_jax.errors import UserError

_COUNTER = "num_batches_tracked"
_BACKBONE = "backbone."
# Prefixes of everything outside the backbone.
_HEADS = ("linear.", "head.", "decode_head.", "upsample.", "neck.", "bbox_head.")
# Names of the last layer: of SeaFormer, then of Swin.
_CLASSIFIERS = {
    "classification": ("linear.weight", "head.weight"),
    "segmentation": ("decode_head.conv_seg.weight",),
    "detection": ("bbox_head.retina_cls.weight",),
}


class Matching(NamedTuple):
    """How the names and shapes of a state dict compare with those of a model.

    Attributes:
        matched: Names that both have, with the same shape.
        missing: Names that only the model has.
        unexpected: Names that only the state dict has.
        misshaped: Names that both have with different shapes, as "name: found shape, expected shape".
    """

    matched: list[str]
    missing: list[str]
    unexpected: list[str]
    misshaped: list[str]

    def __str__(self) -> str:
        """Returns one line with the first five names of each kind, for error messages."""
        parts = [f"{len(self.matched)} names match"]
        for kind in ("missing", "unexpected", "misshaped"):
            if names := getattr(self, kind):
                shown = ", ".join(names[:5]) + (f", and {len(names) - 5} more" if len(names) > 5 else "")
                parts.append(f"{len(names)} {kind} ({shown})")
        return "; ".join(parts)

    def listing(self) -> str:
        """Returns all names, one line per kind, for the log; matched names are only counted per part of the model."""
        parts = collections.Counter(name.removeprefix(_BACKBONE).split(".")[0] for name in self.matched)
        lines = [f"{len(self.matched)} matched: {', '.join(f'{part} {n}' for part, n in parts.items())}"]
        for kind in ("missing", "unexpected", "misshaped"):
            names = getattr(self, kind)
            lines.append(f"{len(names)} {kind}: {', '.join(names)}" if names else f"0 {kind}")
        return "\n".join(lines)


def to_torch(model: nnx.Module, batches_tracked: int = 0) -> dict[str, np.ndarray]:
    """Returns the state dict of `model`: official name -> float32 array in PyTorch's layout.

    Args:
        model: A model of `seaformer_jax.create_model`, or an attention module of `models.attention.create`.
        batches_tracked: Value of BatchNorm's counter `num_batches_tracked` (int64). PyTorch requires it beside the
            statistics but uses it only if the momentum is None. A bare attention module gets no counters.
    """
    values = _variables(model)
    state_dict = {}
    for entry in _entries(model):
        state_dict[entry.name] = entry.to_torch(np.asarray(values[entry.path][...], np.float32))
        # The JAX model has no counters: one is added per BatchNorm.
        if entry.name.endswith("running_var") and not _is_bare(model):
            state_dict[_counter(entry)] = np.asarray(batches_tracked, np.int64)
    return state_dict


def from_torch(model: nnx.Module, state_dict: Mapping[str, np.ndarray]) -> None:
    """Copies `state_dict` into `model`, in place; every name and shape must match.

    Args:
        model: As in `to_torch`.
        state_dict: Official name -> array or tensor in PyTorch's layout.

    Raises:
        ValueError: A name is missing or unexpected, or a shape differs. The message lists them, and `model` is
            unchanged.
    """
    matching = match(model, state_dict)
    if matching.missing or matching.unexpected or matching.misshaped:
        raise UserError(f"the checkpoint is of another model; choose the config of its size: {matching}")
    _assign(model, state_dict, matching.matched)


def load_matching(model: nnx.Module, state_dict: Mapping[str, np.ndarray]) -> Matching:
    """Copies the entries of `state_dict` whose name and shape match into `model`; returns the comparison.

    This is for fine-tuning: a head for another number of classes or another task keeps its fresh values.

    Raises:
        UserError: Nothing matches.
    """
    matching = match(model, state_dict)
    if not matching.matched:
        raise UserError(f"nothing in the checkpoint fits the model: {matching}")
    _assign(model, state_dict, matching.matched)
    return matching


def class_count(state_dict: Mapping[str, np.ndarray], task: str) -> int:
    """Returns the number of classes of the model that `state_dict` belongs to.

    Raises:
        UserError: The state dict has no last layer of a model for `task`.
    """
    head, channels = _last_layer(state_dict, task), PER_CELL if task == "detection" else 1
    shape = np.shape(state_dict.get(head))
    # A linear layer or a convolution, both with the classes first.
    if len(shape) in (2, 4) and shape[0] and shape[0] % channels == 0:
        return shape[0] // channels
    names = ", ".join([*list(state_dict)[:5], "..."])
    found = f"has the shape {shape}" if head in state_dict else "is missing"
    raise UserError(
        f"the checkpoint is of another model than one for {task}: {head} [classes, channels] {found}; its "
        f"{len(state_dict)} names are {names}"
    )


def head_width(state_dict: Mapping[str, np.ndarray], task: str) -> int:
    """Returns the input channels of the last layer; `class_count` must accept the state dict."""
    return np.shape(state_dict[_last_layer(state_dict, task)])[1]


def _last_layer(state_dict: Mapping[str, np.ndarray], task: str) -> str:
    names = _CLASSIFIERS[task]
    return next((name for name in names if name in state_dict), names[0])


def in_backbone(name: str) -> bool:
    """Returns True if `name` is a weight of the backbone, and neither of the head nor a counter of BatchNorm."""
    return not name.startswith(_HEADS) and not name.endswith(_COUNTER)


def is_adaptive(name: str) -> bool:
    """Returns True if `name` is a weight of SeaFormer++'s adaptive maps; with all of them 0 it is the ICLR model."""
    return name.endswith((".squeeze_map.weight", ".expand_map.weight"))


def with_backbone_of(model: nnx.Module, state_dict: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Returns `state_dict` with its backbone renamed as in `model`.

    A classifier has no prefix before the names of its backbone; a segmentation model has "backbone.".
    """
    if not any(entry.name.startswith(_BACKBONE) for entry in _entries(model)):
        return state_dict
    return {
        name if name.startswith((_BACKBONE, *_HEADS)) else _BACKBONE + name: value
        for name, value in state_dict.items()
    }


def match(model: nnx.Module, state_dict: Mapping[str, np.ndarray]) -> Matching:
    """Compares the names and shapes of `state_dict` with those of `model`.

    BatchNorm's counters must be present, as in PyTorch's strict loading, but are never listed as matched: the JAX
    model does not store them. A bare attention module may come without them, because Paddle, the source of MixFormer,
    has none.
    """
    # Shapes are compared exactly: an array of equal size but another shape has its values in another order.
    expected = {entry.name: entry.torch_shape for entry in _entries(model)}
    counters = {_counter(entry) for entry in _entries(model) if entry.name.endswith("running_var")}
    found = {name: tuple(np.shape(value)) for name, value in state_dict.items()}
    return Matching(
        matched=[name for name, shape in expected.items() if found.get(name) == shape],
        missing=sorted((expected.keys() | (set() if _is_bare(model) else counters)) - found.keys()),
        unexpected=sorted(found.keys() - expected.keys() - counters),
        misshaped=[
            f"{name}: found {found[name]}, expected {shape}"
            for name, shape in expected.items()
            if name in found and found[name] != shape
        ],
    )


def _assign(model: nnx.Module, state_dict: Mapping[str, np.ndarray], names: list[str]) -> None:
    """Copies the entries called `names` into `model`, as float32; UserError if one holds what no weight can be."""
    variables, wanted = _variables(model), set(names)
    entries_ = [entry for entry in _entries(model) if entry.name in wanted]
    values = [_checked(entry.name, np.asarray(state_dict[entry.name])) for entry in entries_]
    for entry, value in zip(entries_, values, strict=True):
        variables[entry.path][...] = jnp.asarray(entry.from_torch(value))


def _checked(name: str, value: np.ndarray) -> np.ndarray:
    """Returns the array of a state dict as float32, after checking that it can be a weight."""
    if not np.issubdtype(value.dtype, np.floating):
        # Quantised weights, or ones that lost their decimals.
        raise UserError(f"{name} holds numbers of type {value.dtype}; expected floating-point weights")
    with np.errstate(over="ignore"):  # A float64 beyond float32 becomes infinite, which is found below.
        value = value.astype(np.float32)
    if wrong := value.size - np.isfinite(value).sum():
        raise UserError(
            f"{name} has {wrong} values of {value.size} that are not finite; expected trained weights"
        )
    if name.endswith("running_var") and (value < 0).any():
        raise UserError(f"{name} is {value.min():.3g} at its smallest; expected variances of at least 0")
    return value


def _is_bare(model: nnx.Module) -> bool:
    """Returns whether `model` is an attention module and not a whole model."""
    return not hasattr(model, "backbone")


def _entries(model: nnx.Module) -> list[Entry]:
    return entries({path: variable.shape for path, variable in _variables(model).items()})


def _variables(model: nnx.Module) -> dict[tuple, nnx.Variable]:
    """Returns path -> variable of the model itself, for parameters and BatchNorm statistics."""
    return {path: node for path, node in nnx.iter_graph(model) if isinstance(node, nnx.Param | nnx.BatchStat)}


def _counter(entry: Entry) -> str:
    """Returns the name of the counter that belongs to the running variance `entry`."""
    return entry.name.removesuffix("running_var") + _COUNTER
