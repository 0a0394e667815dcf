"""Creates tasks by name."""

from collections.abc import Sequence

from ml_collections import ConfigDict

from seaformer_jax.errors import UserError, suggest
from seaformer_jax.tasks.base import Task
from seaformer_jax.tasks.classification import Classification
from seaformer_jax.tasks.detection import Detection
from seaformer_jax.tasks.distilled_classification import DistilledClassification
from seaformer_jax.tasks.distilled_segmentation import DistilledSegmentation
from seaformer_jax.tasks.segmentation import Segmentation

_TASKS = {
    "classification": Classification,
    "segmentation": Segmentation,
    "detection": Detection,
    "distilled_classification": DistilledClassification,
    "distilled_segmentation": DistilledSegmentation,
}


def create(config: ConfigDict, class_names: Sequence[str] = ()) -> Task:
    """Returns the task that `config.task.name` names.

    Args:
        config: The whole config.
        class_names: Names of the classes, if they are known. If empty, they are those of the training data.
    Raises:
        UserError: The task is unknown.
    """
    return _find(config)(config, class_names)


def task_type(config: ConfigDict) -> str:
    """Returns `Task.task_type` of the task that `config` names; raises UserError for an unknown task."""
    return _find(config).task_type


def _find(config: ConfigDict) -> type[Task]:
    name = config.task.name
    if name not in _TASKS:
        raise UserError(f"task.name is {name!r}; expected one of {', '.join(_TASKS)}.{suggest(name, _TASKS)}")
    return _TASKS[name]
