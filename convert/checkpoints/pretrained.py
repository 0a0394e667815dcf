"""Loads a file of weights as a model in JAX and in PyTorch, with its classes and normalisation."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx

from convert import weights
from convert.checkpoints import files
from seaformer_jax import json_files
from seaformer_jax.config import IMAGENET_MEAN, IMAGENET_STD
from seaformer_jax.config_ranges import RANGES, Range
from seaformer_jax.data.class_names import numbered
from seaformer_jax.data.labels import LabelSpec, distinct_colours
from seaformer_jax.detection.postprocess import Settings
from seaformer_jax.errors import UserError
from seaformer_jax.models.registry import create_model, list_models
from seaformer_jax.models.swin_config import SWINS
from seaformer_jax.models.variants import VARIANTS

if TYPE_CHECKING:
    import torch

# The last layer of each kind of model.
_TASKS = {
    "linear.weight": "classification",
    "decode_head.conv_seg.weight": "segmentation",
    "head.weight": "classification",  # Swin
    "bbox_head.retina_cls.weight": "detection",
}


def _is_encoding(value: Any) -> bool:
    """Returns whether `value` can be the fields of a `LabelSpec` besides its names; None means unset."""
    fields = {field.name for field in dataclasses.fields(LabelSpec)} - {"class_names"}
    return isinstance(value, dict) and all(
        name in fields and (given is None or RANGES[f"data.{name}"][0](given))
        for name, given in value.items()
    )


# Fields of the JSON beside the weights that are used here -> their ranges.
_CARD_RANGES: dict[str, Range] = {
    "model": RANGES["model.name"],
    "mean": RANGES["data.mean"],
    "std": RANGES["data.std"],
    "crop_fraction": RANGES["eval.crop_fraction"],
    "interpolation": RANGES["eval.interpolation"],
    **{name: RANGES[f"eval.{name}"] for name in Settings._fields},
    "options": (lambda value: isinstance(value, dict), "model options and their values"),
    "labels": (_is_encoding, "the encoding of masks: palette, ignore_label, reduce_zero_label, id_map"),
    "class_names": (
        lambda value: isinstance(value, tuple) and all(isinstance(name, str) for name in value),
        "a list of names",
    ),
}


class Pretrained(NamedTuple):
    """A trained model.

    Attributes:
        name: Name of the model size, such as "seaformer_tiny".
        task: "classification", "segmentation" or "detection".
        options: Model options that differ from the published model, see `create_model`.
        model: The model in JAX.
        state_dict: Official name -> array in PyTorch's layout.
        labels: Names of the classes; for segmentation also their colours and the encoding of masks.
        mean, std: Mean and standard deviation of the three channels, for images in [0, 1].
        card: Content of the JSON file beside the weights; {} if there is no such file.
        path: Path of the file of weights.
        sha256: Hash of the file's content.
    """

    name: str
    task: str
    options: dict[str, Any]
    model: nnx.Module
    state_dict: Mapping[str, np.ndarray]
    labels: LabelSpec
    mean: tuple[float, ...]
    std: tuple[float, ...]
    card: dict[str, Any]
    path: epath.Path
    sha256: str


class Stored(NamedTuple):
    """A file of weights, and what it says of the model without building it.

    Attributes:
        path: Path of the file.
        state_dict: Official name -> array in PyTorch's layout.
        card: Content of the JSON file beside the weights; {} if there is no such file.
        task: "classification", "segmentation" or "detection".
        classes: Number of classes.
    """

    path: epath.Path
    state_dict: Mapping[str, np.ndarray]
    card: dict[str, Any]
    task: str
    classes: int


def read(path: epath.Path) -> Stored:
    """Reads weights with the official names, and the JSON that `convert.to_torch` puts beside them.

    Args:
        path: A .pth, .pth.tar, .pt or .safetensors file.

    Raises:
        UserError: One of the files cannot be read, or the weights are not those of a SeaFormer.
    """
    state_dict, card = files.read_state_dict(path), _read_card(path)
    task = _task(state_dict)
    return Stored(path, state_dict, card, task, weights.class_count(state_dict, task))


def load(
    stored: Stored,
    class_names: Sequence[str] = (),
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> Pretrained:
    """Builds the model of a file of weights.

    Without a JSON file beside it, the model size is the first one that the weights fit, and mean and standard
    deviation are those of ImageNet.

    Args:
        stored: The weights, of `read`.
        class_names, mean, std: Values that replace those of the JSON; () keeps them.

    Raises:
        UserError: The weights are not those of the model in the JSON, or the number of class names, means or standard
            deviations is wrong.
    """
    task, count, card = stored.task, stored.classes, stored.card
    # 1. The classes: given names come before those of the JSON, and "class 0", "class 1", ... are the last resort.
    class_names = _checked("class names", class_names or card.get("class_names") or numbered(count), count)
    labels = dict(card.get("labels", {}))
    if task == "segmentation" and not labels.get("palette"):
        labels["palette"] = distinct_colours(count)
    # 2. The normalisation of the images.
    mean = _checked("means", mean or card.get("mean", IMAGENET_MEAN), 3)
    std = _checked("deviations", std or card.get("std", IMAGENET_STD), 3)
    # 3. The model: its size comes from the JSON or is found by trial.
    options = card.get("options", {})
    names = [card["model"]] if card else list_models(task)
    model, name = _fitting(names, task, count, options, stored.state_dict)
    # The hash identifies the weights in the bundle.
    sha256 = hashlib.sha256(stored.path.read_bytes()).hexdigest()
    spec = LabelSpec(class_names, **labels)
    return Pretrained(
        name, task, options, model, stored.state_dict, spec, mean, std, card, stored.path, sha256
    )


def in_torch(pretrained: Pretrained) -> "torch.nn.Module":
    """Returns the same model in PyTorch, in evaluation mode."""
    import torch  # Here, because loading .safetensors for JAX needs no PyTorch.

    from convert import torch_detection, torch_model, torch_segmentation, torch_swin
    from convert.torch_attention.kinds import chosen

    mirrors = {
        "classification": torch_model,
        "segmentation": torch_segmentation,
        "detection": torch_detection,
    }
    count, options = len(pretrained.labels.class_names), dict(pretrained.options)
    if pretrained.name in SWINS:
        model = torch_swin.create_model(pretrained.name, count, **options)
    else:
        kind = chosen(options.pop("attention", VARIANTS[pretrained.name].attention))
        model = mirrors[pretrained.task].create_model(pretrained.name, count, attention=kind, **options)
    model.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in pretrained.state_dict.items()})
    return model.eval()


def in_jax(pretrained: Pretrained) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from normalised images, float32 [1, H, W, 3], to the logits of the JAX model.

    A detector's logits and box deltas are joined: float32 [1, A, classes + 4].

    It computes in float32 on any device; by default, TPUs and GPUs multiply in a lower precision.
    """
    graph, state = nnx.split(pretrained.model)

    @jax.jit
    def logits(state: nnx.State, images: jax.Array) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            outputs = nnx.merge(graph, state)(images, train=False)
        return jnp.concatenate(outputs, axis=-1) if isinstance(outputs, tuple) else outputs

    return lambda images: np.asarray(logits(state, images))


def _read_card(path: epath.Path) -> dict[str, Any]:
    """Returns the JSON that `convert.to_torch` wrote beside the weights; {} if there is none."""
    beside = files.beside(path, ".json")
    if not beside.exists():
        return {}
    try:
        card = json_files.read(beside)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {beside}, which describes {path.name}: {error}") from error
    if not isinstance(card, dict) or "model" not in card:
        raise UserError(
            f'{beside} has no "model"; expected the JSON that convert.to_torch writes beside {path.name}'
        )
    for field, (holds, expected) in _CARD_RANGES.items():
        if field in card and not holds(card[field]):
            raise UserError(
                f'{beside}: "{field}" is {card[field]!r}; expected {expected}; write it again with convert.to_torch'
            )
    return card


def _task(state_dict: Mapping[str, np.ndarray]) -> str:
    """Returns the task of the weights, by the name of their last layer."""
    found = [task for name, task in _TASKS.items() if name in state_dict]
    if len(found) == 1:
        return found[0]
    names = ", ".join([*list(state_dict)[:5], "..."])
    raise UserError(
        f"the weights are of another model than a SeaFormer: expected {' or '.join(_TASKS)} among the "
        f"{len(state_dict)} names, found {names}"
    )


def _fitting(
    names: Sequence[str],
    task: str,
    count: int,
    options: Mapping[str, Any],
    state_dict: Mapping[str, np.ndarray],
) -> tuple[nnx.Module, str]:
    """Returns the first model that takes all the weights, and its name."""
    matchings = {}
    for name in names:
        model = create_model(name, task, num_classes=count, **options)
        matching = weights.match(model, state_dict)
        if not (matching.missing or matching.unexpected or matching.misshaped):
            weights.from_torch(model, state_dict)
            return model, name
        matchings[name] = matching
    # None fits: the error names the model with the most matching weights.
    closest = max(matchings, key=lambda name: len(matchings[name].matched))
    raise UserError(f"the weights are of another model than {closest}, the closest: {matchings[closest]}")


def _checked(what: str, values: Sequence, count: int) -> tuple:
    """Returns `values` as a tuple; UserError unless there are `count` of them."""
    if len(values) != count:
        raise UserError(f"{len(values)} {what} are given; expected {count}")
    return tuple(values)
