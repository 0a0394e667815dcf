"""Lowers what a recipe runs, the training step or the evaluation of a batch, for any mesh.

The functions are those that `seaformer_jax.train` and `seaformer_jax.evaluate` run; no data is needed.
"""

import importlib

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from seaformer_jax import mesh as meshes
from seaformer_jax import tasks
from seaformer_jax.evaluation import evaluator
from seaformer_jax.models.variables import split_model
from seaformer_jax.tasks.base import Task
from seaformer_jax.training import program

_CLASSES = {"imagenet": 1000, "ade20k": 150, "cityscapes": 19, "coco": 80}


def config(recipe: str, variant: str, model: str, batch_size: int) -> ConfigDict:
    """Returns the config of a recipe in bfloat16, with another model and batch size.

    Args:
        recipe: Name of a file in `configs/` with one of the data sets of `_CLASSES`.
        variant: What follows the colon on the command line.
        model: Name of the model.
        batch_size: Images of the global batch, in training and evaluation.
    """
    values = importlib.import_module(f"configs.{recipe}").get_config(variant)
    values.task.num_classes = _CLASSES[recipe]  # The data would say so.
    values.model.name, values.dtype = model, "bfloat16"
    values.batch_size = values.eval.batch_size = batch_size
    return values


def training(values: ConfigDict, mesh: Mesh) -> jax.stages.Lowered:
    """Returns the training step of a config."""
    meshes.check_batch_size(mesh, values.batch_size, values.optim.accumulate)
    task = tasks.create(values)
    model = task.create_model()
    start = program.prepare(values, model)
    # Shapes, because arrays are on this machine's devices.
    state, constants = jax.eval_shape(lambda: (start.state, task.constants()))
    return program.lower_step(values, task, model, start.optimizer, state, constants, mesh)


def evaluation(values: ConfigDict, mesh: Mesh) -> jax.stages.Lowered:
    """Returns the evaluation of a batch of images of the size that a segmentation recipe evaluates."""
    task = tasks.create(values)
    model = task.create_model()
    step = evaluator.make_step(nnx.graphdef(model), task.eval_metrics, mesh)
    params, batch_stats = jax.eval_shape(lambda: split_model(model))
    return step.lower(params, batch_stats, _images(task, values))


def _images(task: Task, values: ConfigDict) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of an evaluation batch of a segmentation task."""
    count, (width, height) = values.eval.batch_size, values.eval.scale
    return {
        "image": jax.ShapeDtypeStruct((count, height, width, 3), jnp.uint8),
        "size": jax.ShapeDtypeStruct((count, 2), jnp.int32),
        "label": jax.ShapeDtypeStruct((count, height, width), jnp.uint8),
        "label_size": jax.ShapeDtypeStruct((count, 2), jnp.int32),
        "mask": jax.ShapeDtypeStruct((count,), jnp.bool_),
    }
