"""A trained model together with what is needed to use it."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from seaformer_jax import tasks
from seaformer_jax.errors import UserError
from seaformer_jax.training import checkpoint, state, workdir
from seaformer_jax.types import Tree


class Trained(NamedTuple):
    """A model with trained weights, and the task it was made for."""

    config: ConfigDict
    class_names: Sequence[str]
    task: tasks.Task
    model: nnx.Module
    step: int  # Training steps behind the weights; 0: unknown.


def load(folder: pathlib.Path, config: ConfigDict | None = None) -> Trained:
    """Returns the model of the run in `folder` with the weights of its newest checkpoint.

    Args:
        folder: workdir of a training run, or of `convert.from_torch`.
        config: in place of the run's own, e.g. with other data. Its `eval.use_ema` chooses between the averaged
          and the last weights.
    Raises:
        UserError: `folder` is no workdir, or has no checkpoint, or the config makes another model than the run's.
    """
    recorded, class_names = workdir.read(folder)
    config = config or recorded
    task = tasks.create(config, class_names)
    step, params, batch_stats = checkpoint.load_weights(folder, config.eval.use_ema)
    model = task.create_model()
    if _shapes(params) != _shapes(state.split_model(model)[0]):
        raise UserError(
            f"the weights in {folder} are not those of a {config.model.name} with {task.num_classes} classes; "
            "use the config of the run"
        )
    state.update_model(model, params, batch_stats)
    return Trained(config, class_names, task, model, step)


def _shapes(params: Tree) -> Tree:
    return jax.tree.map(np.shape, params)
