"""Tasks by name."""

from collections.abc import Sequence

from ml_collections import ConfigDict

from seaformer_jax.errors import UserError, suggest
from seaformer_jax.tasks.base import Task
from seaformer_jax.tasks.classification import Classification
from seaformer_jax.tasks.segmentation import Segmentation

_TASKS = {"classification": Classification, "segmentation": Segmentation}


def create(config: ConfigDict, class_names: Sequence[str] = ()) -> Task:
    """Returns the task that `config.task.name` names.

    Args:
      config: the whole record.
      class_names: where they are known; otherwise the data set is asked.
    Raises:
      UserError: an unknown task.
    """
    name = config.task.name
    if name not in _TASKS:
        raise UserError(f"task.name is {name!r}; expected one of {', '.join(_TASKS)}.{suggest(name, _TASKS)}")
    return _TASKS[name](config, class_names)
