"""Creates models by name: `list_models`, `create_model` and `model_config`."""

import dataclasses
from typing import Any

import numpy as np
from flax import nnx

from seaformer_jax.errors import UserError, suggest
from seaformer_jax.models import pretrained
from seaformer_jax.models.heads.classifier import Classifier
from seaformer_jax.models.heads.retinanet import RetinaNet
from seaformer_jax.models.heads.segmenter import Segmenter
from seaformer_jax.models.swin_config import SWINS, SwinConfig
from seaformer_jax.models.variants import VARIANTS, SeaFormerConfig

IMAGENET_CLASSES = 1000  # Classes of ImageNet-1k, which the official classifiers predict.
_TASKS = {"classification": Classifier, "segmentation": Segmenter, "detection": RetinaNet}
# Options that only some heads read; the other tasks reject them.
_HEAD_OPTIONS = {
    "classification": ("upsample_ratio", "upsample_width"),
    "segmentation": ("fusion_widths", "fusion", "upsample_ratio", "upsample_width"),
    "detection": ("neck_width", "tower_convs", "anchor_scale"),
}
# Options whose default depends on the model. An empty value keeps that default.
_DEFAULT_BY_MODEL = ("fusion_widths", "adaptive", "attention")


def list_models(task: str = "") -> list[str]:
    """Returns the sorted names that `create_model` accepts for `task`; "" for those that it accepts for all tasks."""
    return sorted([*VARIANTS, *(SWINS if task == "classification" else ())])


def create_model(
    name: str,
    task: str = "classification",
    num_classes: int | None = None,
    seed: int = 0,
    weights: str = "",
    **options,
) -> nnx.Module:
    """Builds a model, with fresh parameters or with weights that ship with the package.

    Args:
        name: One of `list_models(task)`.
        task: "classification" for logits [B, num_classes] from images [B, H, W, 3], "segmentation" for logits
            [B, ceil(H/8), ceil(W/8), num_classes], or "detection" for logits [B, A, num_classes] and box deltas
            [B, A, 4] of A anchors (`heads.retinanet`).
        num_classes: Number of classes that the head predicts. The default is that of `weights`, otherwise 1000.
        seed: Seed of the initial parameters.
        weights: One of `list_weights()`, such as "camvid"; "" for fresh parameters.
        **options: Fields of `SeaFormerConfig` to change, such as `dtype="bfloat16"`, `bn_groups=8`,
            `drop_path_rate=0.0`, `fusion="add"` (segmentation only) or `neck_width=64` (detection only).
            `fusion_widths=()`, `adaptive=""` and `attention=""` keep the values of the named model. Swin has the
            fields of `SwinConfig`.
    Returns:
        An `nnx.Module`; call it as `model(images, train=False)`. Its `backbone` returns all stages' feature maps.
    Raises:
        UserError: The name, the task, the weights, an option or the value of an option is unknown, or the weights
            belong to another model.
    """
    if task not in _TASKS:
        raise UserError(f"unknown task {task!r}; known: {', '.join(_TASKS)}.{suggest(task, _TASKS)}")
    config = model_config(name, task, **options)
    if num_classes is None:
        num_classes = len(pretrained.read_card(weights)["class_names"]) if weights else IMAGENET_CLASSES
    model = _TASKS[task](config, num_classes, np.random.default_rng(seed))
    if weights:
        pretrained.load_into(model, weights)
    return model


def model_config(name: str, task: str = "classification", **options) -> SeaFormerConfig | SwinConfig:
    """Returns the config of the model `name` with `options` changed.

    Args:
        name: One of `list_models(task)`.
        task: "classification", "segmentation" or "detection"; options of the other tasks' heads are rejected.
        **options: As in `create_model`.
    Raises:
        UserError: The name, an option or the value of an option is unknown.
    """
    if name in SWINS and name not in list_models(task):
        raise UserError(
            f"{name} has no head for {task}; choose the task classification, or a seaformer model"
        )
    if name not in list_models(task):
        known = suggest(name, list_models(task))
        raise UserError(f"unknown model {name!r}; known: {', '.join(list_models())}.{known}")
    # An option of another task's head would have no effect, so it counts as unknown.
    of_other_tasks = {option for options in _HEAD_OPTIONS.values() for option in options}.difference(
        _HEAD_OPTIONS[task]
    )
    kinds = (SeaFormerConfig, SwinConfig) if name in SWINS else (SeaFormerConfig,)
    fields = dict.fromkeys(field.name for kind in kinds for field in dataclasses.fields(kind))
    fields = [field for field in fields if field not in of_other_tasks]
    for option in options:
        if option not in fields:
            known = suggest(option, fields) or f" Known: {', '.join(fields)}."
            raise UserError(f"unknown model option {option!r} for {task}.{known}")
    options = {key: value for key, value in options.items() if value or key not in _DEFAULT_BY_MODEL}
    if name in SWINS:
        return dataclasses.replace(SWINS[name], **_for_swin(name, options))
    return dataclasses.replace(VARIANTS[name], **options)


def _for_swin(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Returns `options` without those of SeaFormer, which a config always has; they must have their defaults."""
    fields = {field.name for field in dataclasses.fields(SwinConfig)}
    for option in options.keys() - fields:
        if options[option] != getattr(SeaFormerConfig, option, None):
            raise UserError(
                f"model option {option} is {options[option]!r}, but {name} has no such option; leave it out"
            )
    return {option: value for option, value in options.items() if option in fields}
