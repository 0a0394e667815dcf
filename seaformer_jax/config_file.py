"""Writes a config to a file and reads it back."""

from collections.abc import Mapping
from typing import Any

from etils import epath

from seaformer_jax import config as configs
from seaformer_jax import json_files
from seaformer_jax.config import ConfigDict
from seaformer_jax.errors import UserError


def save(config: ConfigDict, path: epath.Path) -> None:
    """Writes the config to the file `path` as JSON; `load` reads it back."""
    json_files.write(path, config.to_dict())


def complete(record: Mapping[str, Any]) -> ConfigDict:
    """Returns the config with the values of `record`, and with the default of every key that it lacks.

    Args:
        record: A config as nested dictionaries.
    Raises:
        UserError: `task.name` is missing or unknown, or a value has another type than its default.
    """
    task = record.get("task")
    name = task.get("name", "") if isinstance(task, Mapping) else ""
    if not isinstance(name, str) or name not in configs.TASKS:
        raise UserError(f"task.name is {name!r}; expected one of {', '.join(configs.TASKS)}")
    config = configs.for_task(name).copy_and_resolve_references()
    _fill(config, record, "")
    return config


def _fill(config: ConfigDict, record: Mapping[str, Any], section: str) -> None:
    """Copies the values of `record` into `config`; `section` is the name of `config` with a dot, or ""."""
    for key, value in record.items():
        if key in config and isinstance(config[key], ConfigDict) and isinstance(value, Mapping):
            _fill(config[key], value, f"{section}{key}.")
            continue
        expected = type(config.get(key, value))
        # JSON writes 1.0 as 1.0, but a whole number is as good.
        if not isinstance(value, expected) and not (expected is float and isinstance(value, int)):
            wanted = "a section" if expected is ConfigDict else f"a value of type {expected.__name__}"
            raise UserError(f"{section}{key} is {value!r}; expected {wanted}")
        config[key] = value


def load(path: epath.Path) -> ConfigDict:
    """Returns the config that `save` wrote to the file `path`, with tuples in place of JSON's lists.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file does not contain JSON, or (as UserError) no config.
    """
    record = json_files.read(path)
    if not isinstance(record, dict):
        raise UserError(f"found {record!r:.40}, expected an object")
    return complete(record)
