"""Loads the frozen teacher of a distillation, from a run or from a file with the official names."""

from collections.abc import Sequence

from absl import logging
from etils import epath
from flax import nnx
from ml_collections import ConfigDict

from convert import weights
from convert.checkpoints import files
from seaformer_jax import create_model, paths, tasks
from seaformer_jax.data.class_names import numbered
from seaformer_jax.errors import UserError
from seaformer_jax.training import trained, workdir


def load(config: ConfigDict, class_names: Sequence[str]) -> nnx.Module:
    """Returns the model that `config.teacher` names; it computes in `config.dtype`.

    Args:
        config: Config of the student's run.
        class_names: Names of the classes in the student's data, in order.

    Raises:
        UserError: The teacher does not exist, or it has another task type, other classes or another mean or std.
    """
    source = config.teacher.source
    if not source:
        raise UserError(
            "teacher.source is not set; give a workdir, or a checkpoint together with teacher.model"
        )
    path = paths.of(source)
    if not path.exists():
        raise UserError(f"teacher.source: {source} does not exist; expected a workdir or a file of weights")
    model = (_of_run if path.is_dir() else _of_file)(path, config, class_names)
    logging.info("teacher: %s, features of %d channels", source, model.width)
    return model


def _of_run(folder: epath.Path, config: ConfigDict, class_names: Sequence[str]) -> nnx.Module:
    """Loads a teacher from a workdir, whose config must agree with the student's."""
    recorded, names = workdir.read(folder)
    task_type = tasks.task_type(config)
    if recorded.task.name != task_type:
        raise UserError(
            f"teacher.source: {folder} is a run of {recorded.task.name}; expected one of {task_type}"
        )
    if (name := config.teacher.model) not in ("", recorded.model.name):
        raise UserError(f"teacher.model is {name!r}, but {folder} has a {recorded.model.name}; leave it out")
    _check_classes(names, class_names, folder)
    for key in ("mean", "std"):
        if recorded.data[key] != config.data[key]:
            raise UserError(
                f"data.{key} is {config.data[key]!r}, but the teacher {folder} has {recorded.data[key]!r}; both "
                "see the same images and need the same values"
            )
    recorded.dtype = config.dtype  # The teacher computes as the student does, however it was trained.
    return trained.load(folder, recorded).model


def _of_file(path: epath.Path, config: ConfigDict, class_names: Sequence[str]) -> nnx.Module:
    """Loads a teacher from a file, which has no class names and no mean or std: only the class count is checked."""
    task_type, name = tasks.task_type(config), config.teacher.model
    if not name:
        raise UserError(
            f"teacher.model is not set: {path} does not name its model; set it, e.g. to seaformer_base"
        )
    state_dict = files.read_state_dict(path)
    _check_classes(numbered(weights.class_count(state_dict, task_type)), class_names, path)
    model = create_model(name, task_type, num_classes=len(class_names), dtype=config.dtype)
    weights.from_torch(model, state_dict)
    return model


def _check_classes(found: Sequence[str], expected: Sequence[str], owner: epath.Path) -> None:
    """Raises UserError if teacher and data have different classes; numbered names ("class 0", ...) fit any names."""
    found, expected = list(found), list(expected)
    if found == expected or (found == numbered(len(found)) and len(found) == len(expected)):
        return
    # The message shows the first difference only.
    if len(found) != len(expected):
        difference = f"{len(found)} classes, but the data has {len(expected)}"
    else:
        index = next(i for i, pair in enumerate(zip(found, expected, strict=True)) if len(set(pair)) == 2)
        difference = f"{found[index]!r} for class {index}, but the data has {expected[index]!r}"
    raise UserError(
        f"the teacher {owner} has {difference}; both need the same classes in the same order: choose a teacher "
        "that was trained on this data"
    )
