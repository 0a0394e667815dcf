"""Weights to start from: those of a run, or of a file with the official names."""

import pathlib

from absl import logging
from flax import nnx
from ml_collections import ConfigDict

from convert import weights
from convert.checkpoints import files
from seaformer_jax import tasks
from seaformer_jax.errors import UserError
from seaformer_jax.training import trained


def load(path: pathlib.Path, config: ConfigDict) -> trained.Trained:
    """Returns the model of `config` with the weights in the file `path`, which must fit it entry by entry.

    The file tells the number of classes. Their names are those of the data set where it is there, and
    "class 0", "class 1", ... otherwise.

    Raises:
        UserError: the file cannot be read, or is of another model or another number of classes than `config`.
    """
    state_dict = files.read_state_dict(path)
    task_type = tasks.task_type(config)
    count = weights.class_count(state_dict, task_type)
    if config.task.num_classes not in (0, count):
        raise UserError(
            f"{path} has {count} classes, but task.num_classes is {config.task.num_classes}; leave it at 0, or "
            "train a new head on these weights with --config.init_from"
        )
    if not config.model.get("upsample_width", 1):  # Of a student, whose teacher need not be there.
        config = config.copy_and_resolve_references()
        config.model.upsample_width = weights.head_width(state_dict, task_type)
    class_names = _class_names(config, count)
    task = tasks.create(config, class_names)
    model = task.create_model()
    weights.from_torch(model, state_dict)
    return trained.Trained(config, class_names, task, model, step=0)


def load_into(model: nnx.Module, source: str) -> None:
    """Puts the weights of `source` into `model`; only the head may differ, and then keeps its fresh values.

    A SeaFormer++ takes an ICLR model's weights: what makes its adaptive weights stays 0, and so it computes the same.
    The log lists the names that matched, those that are missing in `source` and those that it has besides.

    Args:
        model: of `seaformer_jax.create_model`.
        source: a workdir, whose own config tells which of its weights are meant, or a file of weights with the
          official names (.pth, .pth.tar, .pt or .safetensors). It may be a classifier where `model` segments.
    Raises:
        UserError: `source` cannot be read, or its backbone is not the one of `model`.
    """
    path = pathlib.Path(source).expanduser()
    if not path.exists():
        raise UserError(f"init_from: {source} does not exist; expected a workdir or a file of weights")
    state_dict = weights.to_torch(trained.load(path).model) if path.is_dir() else files.read_state_dict(path)
    state_dict = weights.with_backbone_of(model, state_dict)
    matching = weights.match(model, state_dict)
    missing = [name for name in matching.missing if not weights.is_adaptive(name)]
    others = [name for name in missing + matching.misshaped if weights.in_backbone(name)]
    if others:
        raise UserError(
            f"init_from: {source} has another backbone than the model; choose its size: {matching}"
        )
    weights.load_matching(model, state_dict)
    logging.info("init_from: %s\n%s", source, matching.listing())


def _class_names(config: ConfigDict, count: int) -> list[str]:
    try:
        names = list(tasks.create(config).class_names)
        reason = f"the data set has {len(names)} classes, the weights {count}"
    except UserError as error:  # The weights are of use without the data.
        names, reason = [], str(error)
    if len(names) == count:
        return names
    logging.info('the classes are called "class 0" to "class %d": %s', count - 1, reason)
    return [f"class {index}" for index in range(count)]
