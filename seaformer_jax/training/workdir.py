"""The work directory of a run: config.json, labels.json, metrics.jsonl, tensorboard/, checkpoints/.

If the run was resumed with other values, config_changes.jsonl has them with the step from which they hold. Traces of
steps are in profile/.
"""

import contextlib
import fnmatch
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
from absl import logging
from etils import epath
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from seaformer_jax import config as configs
from seaformer_jax import config_check, config_file, json_files
from seaformer_jax.config_ranges import RESUMABLE
from seaformer_jax.errors import UserError, reason
from seaformer_jax.paths import append
from seaformer_jax.training import schedules
from seaformer_jax.training.checkpoint import had_checkpoints, saved_steps


def prepare_workdir(workdir: epath.Path, config: ConfigDict, class_names: Sequence[str]) -> None:
    """Creates the work directory of a run, or checks that an existing one belongs to the same run.

    A run that ended before its first checkpoint has nothing to resume, so any config may take over its folder. One
    that resumes may change the keys of `config_ranges.RESUMABLE`, and `total_steps` if all its steps so far had the
    learning rates of a run with the new value. With several processes, only the first one writes.

    Args:
        workdir: Work directory.
        config: Config of the run. `config.distributed` is saved and compared as its default: it says how the hosts
            find each other, which differs between them.
        class_names: Names of the classes, in the order of the logits.
    Raises:
        UserError: The folder cannot be written, it holds checkpoints of another config, or its checkpoints or its
            config are gone.
    """
    if jax.process_index() > 0:
        return
    config = config.copy_and_resolve_references()
    config.distributed = configs.default().distributed
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        path = workdir / "config.json"
        steps = saved_steps(workdir)
        _check_complete(workdir, steps)
        if steps:
            _take_up(path, config, steps[-1])
        else:
            config_file.save(config, path)
        json_files.write(workdir / "labels.json", list(class_names))
    except OSError as error:
        raise UserError(f"cannot write to --workdir {workdir}: {reason(error)}; choose another") from error


def read(workdir: epath.Path) -> tuple[ConfigDict, list[str]]:
    """Returns the config and the class names of the run in `workdir`.

    Keys that the config lacks, as that of an older version may, have their defaults.

    Raises:
        UserError: `workdir` has no run, or its files are damaged.
    """
    config, path = _read_config(workdir / "config.json"), workdir / "labels.json"
    with _naming(path):
        names = json_files.read(path)
        if not (isinstance(names, tuple) and names and all(isinstance(name, str) for name in names)):
            raise UserError(f"found {json.dumps(names)[:40]}, expected a list of class names")
    return config, list(names)


def _read_config(path: epath.Path) -> ConfigDict:
    with _naming(path):
        config = config_file.load(path)
        config_check.check(config)
    return config


@contextlib.contextmanager
def _naming(path: epath.Path) -> Iterator[None]:
    """Turns what goes wrong while the file `path` is read into a UserError that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(
            f"{path.parent} is not the workdir of a run: no {path.name}; expected a folder that training or "
            "convert.from_torch wrote"
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from error
    except (ValueError, TypeError) as error:  # Broken JSON, bytes that are not UTF-8, and wrong values.
        raise UserError(f"{path} is damaged: {error}; correct it, or restore a copy of it") from error


def _check_complete(workdir: epath.Path, steps: Sequence[int]) -> None:
    """Raises UserError if the run in `workdir` lost what it needs to resume from the checkpoints at `steps`."""
    if had_checkpoints(workdir) and not steps:
        raise UserError(
            f"the checkpoints of the run in {workdir} are gone, so it cannot go on; put its folder `checkpoints` "
            "back, or start again in a new --workdir"
        )
    if steps and not (workdir / "config.json").exists():
        raise UserError(
            f"{workdir} has checkpoints but no config.json, so nobody knows what they were trained with; restore a "
            "copy of config.json, or start again in a new --workdir"
        )


def _take_up(path: epath.Path, config: ConfigDict, step: int) -> None:
    """Checks that the run with the config at `path` may resume from `step` with `config`, and records what changed.

    Raises:
        UserError: A key differs that a run may not change.
    """
    before, config = _read_config(path), config_file.complete(config.to_dict())
    changes = _differences(before, config)
    locked = [key for key in changes if key != "total_steps" and not _is_resumable(key)]
    if locked:
        raise UserError(
            f"{path.parent} belongs to a run with another config: {_listing(changes, locked)}. "
            "Use its values to resume it, or a new --workdir"
        )
    if "total_steps" in changes:
        _check_length(before, config.total_steps, step, path.parent)
    if changes:
        logging.info("the run goes on with other values: %s", _listing(changes, changes))
        _record(changes, step, path.with_name("config_changes.jsonl"))
        config_file.save(config, path)


def _differences(before: ConfigDict, now: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """Returns key -> its values in both configs, for the keys whose values differ."""
    before, now = (flatten_dict(c.to_dict(), sep=".") for c in (before, now))
    keys = sorted(before.keys() | now.keys())
    return {key: (before.get(key), now.get(key)) for key in keys if before.get(key) != now.get(key)}


def _is_resumable(key: str) -> bool:
    return any(fnmatch.fnmatchcase(key, pattern) for pattern in RESUMABLE)


def _listing(changes: Mapping[str, tuple[Any, Any]], keys: Iterable[str]) -> str:
    """Returns e.g. `optim.lr was 0.001, now 0.5`."""
    return "; ".join(f"{key} was {changes[key][0]!r}, now {changes[key][1]!r}" for key in keys)


def _check_length(config: ConfigDict, now: int, step: int, workdir: epath.Path) -> None:
    """Raises UserError unless the steps so far are those of a run with another `total_steps`.

    Args:
        config: Config of the run so far.
        now: The new value of `total_steps`.
        step: Step of the newest checkpoint.
        workdir: Work directory of the run.
    """
    before, schedule = config.total_steps, config.optim.schedule
    if now < step:
        raise UserError(
            f"total_steps was {before}, now {now}, and {workdir} has a checkpoint of step {step}; expected at least "
            f"{step}"
        )
    if not schedules.same_before(step, schedule, config.optim.lr, (before, now)):
        raise UserError(
            f"total_steps was {before}, now {now}, which would stretch the schedule {schedule.name!r}: the {step} "
            f"steps so far had other learning rates than in a run of {now}. Resume with total_steps={before}, or "
            f"start from these weights in a new --workdir with --config.init_from={workdir}"
        )
    logging.info("the schedule %r goes on as in a run that was started with %d steps", schedule.name, now)


def _record(changes: Mapping[str, tuple[Any, Any]], step: int, path: epath.Path) -> None:
    """Appends one row per change to the file `path`: {"step", "key", "before", "now"}."""
    rows = [
        {"step": step, "key": key, "before": before, "now": now} for key, (before, now) in changes.items()
    ]
    append(path, "".join(f"{json.dumps(row)}\n" for row in rows))
