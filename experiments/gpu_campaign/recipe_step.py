"""The training step of a recipe, compiled for the devices of this machine as `train` compiles it."""

import importlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from experiments import measure
from seaformer_jax import mesh as meshes
from seaformer_jax import tasks
from seaformer_jax.training import program
from seaformer_jax.training.state import TrainState


class RecipeStep(NamedTuple):
    """A compiled step and its arguments: `compiled(state, batch, constants) -> (state, metrics)`."""

    compiled: jax.stages.Compiled
    state: TrainState
    batch: Any
    constants: Any


def read(recipe: str, batch: int) -> ConfigDict:
    """Returns the config of a recipe, such as "configs/imagenet.py:tiny", for `batch` images in bfloat16."""
    path, _, variant = recipe.partition(":")
    config = importlib.import_module(path.removesuffix(".py").replace("/", ".")).get_config(variant)
    config.update({"batch_size": batch, "dtype": "bfloat16"})
    return config


def compile_step(config: ConfigDict, classes: int) -> RecipeStep:
    """Compiles the step; the images are black and all of class 0, because its time does not depend on them."""
    mesh = meshes.create_mesh()
    task = tasks.create(config, [f"class {index}" for index in range(classes)])
    model = task.create_model()
    start = program.prepare(config, model)
    whole, rows = meshes.replicated(mesh), meshes.batch_sharding(mesh)
    state, constants = jax.device_put((start.state, task.constants()), whole)
    lowered = program.lower_step(config, task, model, start.optimizer, state, constants, mesh)
    batch = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), task.example_batches(config.batch_size)[0])
    return RecipeStep(lowered.compile(), state, jax.device_put(batch, rows), constants)


def seconds_of(step: RecipeStep, rounds: int, steps: int = 10) -> float:
    """Returns the median seconds of a step, in runs of `steps` steps after which the host waits for the device."""
    state = step.state

    def run() -> None:
        nonlocal state
        for _ in range(steps):
            state, metrics = step.compiled(state, step.batch, step.constants)
        jax.block_until_ready(metrics)

    return measure.interleaved({"step": run}, rounds)["step"] / steps
