"""The training step as a program for a mesh: what `loop` compiles and runs.

Nothing here asks which devices this machine has; only the mesh decides. So the program of a TPU slice can be compiled
on a machine without one.
"""

from typing import NamedTuple

import jax
import optax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from seaformer_jax import mesh as meshes
from seaformer_jax.models.variables import split_model
from seaformer_jax.tasks.base import Task
from seaformer_jax.training import optim
from seaformer_jax.training import state as states
from seaformer_jax.training.state import TrainState
from seaformer_jax.training.step import make_train_step
from seaformer_jax.types import Batch


class Start(NamedTuple):
    """The state before the first step, and what changes it."""

    state: TrainState
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule


def prepare(config: ConfigDict, model: nnx.Module) -> Start:
    """Returns the state before the first step, the optimiser and the learning-rate schedule."""
    optimizer, schedule = optim.create(config.optim, config.total_steps, split_model(model)[0])
    return Start(states.create(model, optimizer, config.optim.ema_decay > 0), optimizer, schedule)


def lower_step(
    config: ConfigDict,
    task: Task,
    model: nnx.Module,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    constants: Batch,
    mesh: Mesh,
    batch: Batch | None = None,
) -> jax.stages.Lowered:
    """Returns the training step for the devices of `mesh`, ready to be compiled.

    The compiled step is `update(state, batch, constants) -> (state, metrics)`. It donates `state`, which must not be
    used afterwards.

    Args:
        config: The whole config.
        task: Supplies the loss and the shapes of a batch.
        model: Model of `task`; only its structure is used.
        optimizer: Optimiser that made `state`.
        state: State before a step. Its shapes are used, so it may consist of `jax.ShapeDtypeStruct`s.
        constants: As returned by `task.constants`; their shapes are used.
        mesh: Mesh with the single axis "data".
        batch: One of `task.example_batches`; the default is the first one.
    """
    step = make_train_step(
        nnx.graphdef(model),
        task.loss,
        optimizer,
        seed=config.seed,
        ema_decay=config.optim.ema_decay,
        ema_warmup=config.optim.ema_warmup,
        accumulate=config.optim.accumulate,
    )
    # Each device holds the whole state and constants, and its own rows of the batch. From these shardings XLA derives
    # the sums over the devices, so the step itself is written for the global batch.
    whole, rows = meshes.replicated(mesh), meshes.batch_sharding(mesh)
    jitted = jax.jit(step, in_shardings=(whole, rows, whole), out_shardings=whole, donate_argnums=0)
    with jax.set_mesh(mesh):  # For layers that have to know how many devices share the batch.
        # From shapes alone, so that no batch is needed.
        return jitted.lower(state, batch or task.example_batches(config.batch_size)[0], constants)
