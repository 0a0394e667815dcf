"""Distillation tasks on `shapes` that compile in seconds, with a teacher whose features are wider."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from seaformer_jax import config as configs
from seaformer_jax import create_model, tasks
from seaformer_jax.models.variants import VARIANTS
from tests.training import nano

SHAPES_CLASSES = 9  # Of the masks; images have one class less.


def make_config(task_type: str, **changes) -> configs.ConfigDict:
    """The record of a nano student; `changes` are dotted keys with __ for the dot."""
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
    """A nano model with random weights whose features are wider than the student's."""
    nano.get_config(), nano.get_segmentation_config()  # They register the models.
    segments = task_type == "segmentation"
    name, classes = ("nano_segmentation", SHAPES_CLASSES) if segments else ("nano_wide", SHAPES_CLASSES - 1)
    if segments:
        options = {"fusion_widths": (12,)} | options
    stage = nano.NANO.stages[0][0]._replace(channels=16)
    VARIANTS["nano_wide"] = dataclasses.replace(nano.NANO, stages=((stage,),))
    model = create_model(name, task_type, classes, seed, **options)
    moved = jax.tree.map(lambda x: x + 0.1 * jnp.sign(x), nnx.state(model, nnx.Param))
    nnx.update(model, moved)  # No scale is 0: all parts count.
    return model


def make_task(task_type: str, **changes) -> tasks.Task:
    return tasks.create(make_config(task_type, **changes)).with_teacher(teacher(task_type))
