"""Distillation tasks on `shapes` that compile in seconds, with a teacher whose features are wider."""

import jax
import numpy as np
from flax import nnx

from seaformer_jax import config as configs
from seaformer_jax import create_model, tasks
from tests import toys
from tests.training import nano

SHAPES_CLASSES = 9  # Of the masks; images have one class less.


def make_config(task_type: str, **changes) -> configs.ConfigDict:
    """Returns the config of a nano student; `changes` are dotted keys with __ for the dot."""
    config = configs.distillation(
        nano.get_segmentation_config() if task_type == "segmentation" else nano.get_config()
    )
    config.update_from_flattened_dict({"data.image_size": 64, "batch_size": 8, "optim.weight_decay": 1e-4})
    if task_type == "segmentation":
        config.update_from_flattened_dict({"data.base_scale": (64, 64), "data.crop_size": (64, 64)})
        config.update_from_flattened_dict({"eval.scale": (64, 64), "optim.ema_decay": 0.9})
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return config


def teacher(task_type: str, seed: int = 9, **options) -> nnx.Module:
    """Returns a nano model with random weights whose features are wider than the student's."""
    toys.register()
    segments = task_type == "segmentation"
    name = "nano_segmentation_wide" if segments else "nano_wide"
    model = create_model(name, task_type, SHAPES_CLASSES - (not segments), seed, **options)
    moved = jax.tree.map(lambda x: x + np.float32(0.1) * np.sign(x), nnx.state(model, nnx.Param))
    nnx.update(model, moved)  # No scale is 0, so all parts of the model count.
    return model


def make_task(task_type: str, **changes) -> tasks.Task:
    return tasks.create(make_config(task_type, **changes)).with_teacher(teacher(task_type))
