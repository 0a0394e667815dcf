"""Loads weights to start from, out of a run or out of a file with the official names."""

from collections.abc import Mapping

import numpy as np
from absl import logging
from etils import epath
from flax import nnx
from ml_collections import ConfigDict

from convert import weights
from convert.checkpoints import files
from seaformer_jax import paths, tasks
from seaformer_jax.data.class_names import numbered
from seaformer_jax.errors import UserError
from seaformer_jax.models import pretrained
from seaformer_jax.training import trained


def load(path: epath.Path, config: ConfigDict) -> trained.Trained:
    """Returns the model of `config` with the weights in the file `path`; every name and shape must match.

    The number of classes follows from the weights. The class names are those of the data set if it is available and
    has as many classes, and "class 0", "class 1", ... otherwise.

    Raises:
        UserError: The file cannot be read, or it belongs to another model or another number of classes than `config`.
    """
    state_dict = files.read_state_dict(path)
    task_type = tasks.task_type(config)
    count = weights.class_count(state_dict, task_type)
    if config.task.num_classes not in (0, count):
        raise UserError(
            f"{path} has {count} classes, but task.num_classes is {config.task.num_classes}; leave it at 0, or "
            "train a new head on these weights with --config.init_from"
        )
    # The width of a student's up-sampling module is that of its teacher. The weights have it, so the teacher is not
    # needed.
    if not config.model.get("upsample_width", 1):
        config = config.copy_and_resolve_references()
        config.model.upsample_width = weights.head_width(state_dict, task_type)
    class_names = _class_names(config, count)
    task = tasks.create(config, class_names)
    model = task.create_model()
    weights.from_torch(model, state_dict)
    return trained.Trained(config, class_names, task, model, step=0)


def load_into(model: nnx.Module, source: str) -> None:
    """Copies the weights of `source` into `model`; a head that differs keeps its fresh values.

    The backbone must match. One exception: a SeaFormer++ accepts the weights of an ICLR model. Its adaptive maps then
    stay 0, so that it computes the same function. The log counts the names that matched and lists the missing, the
    unexpected and the misshaped ones.

    Args:
        model: A model of `seaformer_jax.create_model`.
        source: A workdir, whose config decides between the averaged and the last weights; a file of weights with the
            official names (.pth, .pth.tar, .pt or .safetensors); or weights that ship with the package. Segmentation
            models and detectors may start from a classifier, and from each other.

    Raises:
        UserError: `source` cannot be read, or its backbone is not that of `model`.
    """
    state_dict = _read(source)
    # Rename first: a classifier's backbone has no prefix, a segmentation model's has one.
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


def _read(source: str) -> Mapping[str, np.ndarray]:
    """Returns the state dict of a workdir, of a file, or of weights that ship with the package."""
    path = paths.of(source)
    if path.is_dir():
        return weights.to_torch(trained.load(path).model)
    if path.exists():
        return files.read_state_dict(path)
    if source in pretrained.list_weights():
        return weights.to_torch(trained.load_pretrained(source).model)
    raise UserError(
        f"init_from: {source} does not exist; expected a workdir, a file of weights, or weights of the package "
        f"({', '.join(pretrained.list_weights())})"
    )


def _class_names(config: ConfigDict, count: int) -> list[str]:
    """Returns the data set's class names if there are `count` of them, and numbered names otherwise."""
    try:
        names = list(tasks.create(config).class_names)
        reason = f"the data set has {len(names)} classes, the weights {count}"
    except UserError as error:  # The weights are useful without the data.
        names, reason = [], str(error)
    if len(names) == count:
        return names
    logging.info('the classes are called "class 0" to "class %d": %s', count - 1, reason)
    return numbered(count)
