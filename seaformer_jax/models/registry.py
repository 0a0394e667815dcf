"""Models by name."""

import dataclasses

import numpy as np
from flax import nnx

from seaformer_jax.errors import UserError, suggest
from seaformer_jax.models.heads.classifier import Classifier
from seaformer_jax.models.heads.segmenter import Segmenter
from seaformer_jax.models.variants import VARIANTS, SeaFormerConfig

_TASKS = {"classification": Classifier, "segmentation": Segmenter}
_HEAD_OPTIONS = {"classification": (), "segmentation": ("fusion_widths", "fusion")}
# Options in which the models differ; where they are empty, a model keeps its own value.
_OF_THE_MODEL = ("fusion_widths", "adaptive")


def list_models() -> list[str]:
    """Returns the names that `create_model` knows, sorted."""
    return sorted(VARIANTS)


def create_model(
    name: str, task: str = "classification", num_classes: int = 1000, seed: int = 0, **options
) -> nnx.Module:
    """Builds a model with fresh parameters.

    Args:
        name: one of `list_models()`.
        task: "classification": logits [B, num_classes] from images [B, H, W, 3]; "segmentation": logits
          [B, ceil(H/8), ceil(W/8), num_classes].
        num_classes: outputs of the head.
        seed: of the initial parameters.
        **options: fields of `SeaFormerConfig` to change, such as `dtype="bfloat16"`, `bn_groups=8`,
          `drop_path_rate=0.0` or `fusion="add"` (segmentation only); `fusion_widths=()` and `adaptive=""` leave the
          model's own.
    Returns:
        An `nnx.Module`; call it as `model(images, train=False)`. Its `backbone` gives the maps of all stages.
    Raises:
        UserError: unknown name, task, option or value of an option.
    """
    if task not in _TASKS:
        raise UserError(f"unknown task {task!r}; known: {', '.join(_TASKS)}.{suggest(task, _TASKS)}")
    config = model_config(name, task, **options)
    return _TASKS[task](config, num_classes, np.random.default_rng(seed))


def model_config(name: str, task: str = "classification", **options) -> SeaFormerConfig:
    """Returns the preset of `name` with `options` changed; UserError on an unknown name or option of `task`."""
    if name not in VARIANTS:
        raise UserError(
            f"unknown model {name!r}; known: {', '.join(list_models())}.{suggest(name, VARIANTS)}"
        )
    of_other_tasks = {option for options in _HEAD_OPTIONS.values() for option in options}.difference(
        _HEAD_OPTIONS[task]
    )
    fields = [field.name for field in dataclasses.fields(SeaFormerConfig) if field.name not in of_other_tasks]
    for option in options:
        if option not in fields:
            known = suggest(option, fields) or f" Known: {', '.join(fields)}."
            raise UserError(f"unknown model option {option!r} for {task}.{known}")
    options = {key: value for key, value in options.items() if value or key not in _OF_THE_MODEL}
    return dataclasses.replace(VARIANTS[name], **options)
