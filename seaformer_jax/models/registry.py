"""Models by name."""

import dataclasses

import numpy as np
from flax import nnx

from seaformer_jax.errors import UserError, suggest
from seaformer_jax.models.heads import Classifier
from seaformer_jax.models.variants import VARIANTS, SeaFormerConfig

_TASKS = {"classification": Classifier}


def list_models() -> list[str]:
    """Returns the names that `create_model` knows, sorted."""
    return sorted(VARIANTS)


def create_model(
    name: str, task: str = "classification", num_classes: int = 1000, seed: int = 0, **options
) -> nnx.Module:
    """Builds a model with fresh parameters.

    Args:
      name: one of `list_models()`.
      task: "classification": logits [B, num_classes] from images [B, H, W, 3].
      num_classes: outputs of the head.
      seed: of the initial parameters.
      **options: fields of `SeaFormerConfig` to change, such as `dtype="bfloat16"`, `bn_groups=8` or
        `drop_path_rate=0.0`.
    Returns:
      An `nnx.Module`; call it as `model(images, train=False)`.
    Raises:
      UserError: unknown name, task or option.
    """
    config = model_config(name, **options)
    if task not in _TASKS:
        raise UserError(f"unknown task {task!r}; known: {', '.join(_TASKS)}.{suggest(task, _TASKS)}")
    return _TASKS[task](config, num_classes, np.random.default_rng(seed))


def model_config(name: str, **options) -> SeaFormerConfig:
    """Returns the preset of `name` with `options` changed; UserError on an unknown name or option."""
    if name not in VARIANTS:
        raise UserError(
            f"unknown model {name!r}; known: {', '.join(list_models())}.{suggest(name, VARIANTS)}"
        )
    fields = [field.name for field in dataclasses.fields(SeaFormerConfig)]
    for option in options:
        if option not in fields:
            raise UserError(f"unknown model option {option!r}.{suggest(option, fields)}")
    return dataclasses.replace(VARIANTS[name], **options)
