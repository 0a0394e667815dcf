"""Loads a trained model together with its config, class names and task."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from etils import epath
from flax import nnx
from ml_collections import ConfigDict

from seaformer_jax import config as configs
from seaformer_jax import tasks
from seaformer_jax.errors import UserError
from seaformer_jax.models import pretrained
from seaformer_jax.models.variables import split_model, update_model
from seaformer_jax.training import checkpoint as checkpoints
from seaformer_jax.training import workdir
from seaformer_jax.types import Tree


class Trained(NamedTuple):
    """A model with trained weights, and the task that it solves.

    Attributes:
        config: Config of model and task.
        class_names: Names of the classes, in the order of the logits.
        task: The task.
        model: The model.
        step: Number of training steps that made the weights; 0 if unknown.
    """

    config: ConfigDict
    class_names: Sequence[str]
    task: tasks.Task
    model: nnx.Module
    step: int


def load(
    folder: epath.Path,
    config: ConfigDict | None = None,
    checkpoint: str = "last",
    use_ema: bool | None = None,
) -> Trained:
    """Returns the model of the run in `folder` with the weights of one of its checkpoints.

    Args:
        folder: Work directory of a training run or of `convert.from_torch`.
        config: Replaces the run's own config, e.g. to use other data. Its `eval.use_ema` chooses between the
            averaged and the last weights.
        checkpoint: "last", "best" (by the task's `best_metric`) or a step.
        use_ema: Replaces `eval.use_ema` of the config.
    Raises:
        UserError: `folder` is not a workdir or has no such checkpoint, the config describes another model, or
            `use_ema` asks for averaged weights and the run has none.
    """
    recorded, class_names = workdir.read(folder)
    config = config or recorded
    if use_ema and not recorded.optim.ema_decay:
        raise UserError(f"{folder} has no averaged weights: optim.ema_decay was 0; leave --ema out")
    if use_ema is not None:
        config = config.copy_and_resolve_references()
        config.eval.use_ema = use_ema
    task = tasks.create(config, class_names)
    step, params, batch_stats = checkpoints.load_weights(
        folder, config.eval.use_ema, checkpoint, task.best_metric
    )
    model = task.create_model()
    # A given config may describe another model than the one that was trained.
    if _shapes(params) != _shapes(split_model(model)[0]):
        raise UserError(
            f"the weights in {folder} are not those of a {config.model.name} with {task.num_classes} classes; "
            "use the config of the run"
        )
    update_model(model, params, batch_stats)
    return Trained(config, class_names, task, model, step)


def load_pretrained(name: str, config: ConfigDict | None = None) -> Trained:
    """Returns the model with the weights `name` that ship with the package.

    Args:
        name: One of `seaformer_jax.list_weights()`.
        config: Replaces the config on the weights' card, e.g. to evaluate on data that is somewhere else.
    Raises:
        UserError: There are no such weights, or the config describes another model.
    """
    card = pretrained.read_card(name)
    if config is None:
        config = configs.for_task(card["task"])
        config.update_from_flattened_dict(card["config"])
    task = tasks.create(config, card["class_names"])
    model = task.create_model()
    pretrained.load_into(model, name)
    return Trained(config, card["class_names"], task, model, card["step"])


def _shapes(params: Tree) -> Tree:
    return jax.tree.map(np.shape, params)
