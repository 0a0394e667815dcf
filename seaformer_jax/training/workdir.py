"""The work directory of a run: config.json, labels.json, metrics.jsonl, tensorboard/, checkpoints/."""

import contextlib
import json
import pathlib
from collections.abc import Iterator, Sequence

import jax
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from seaformer_jax import config as configs
from seaformer_jax import config_check, config_file, json_files
from seaformer_jax.errors import UserError
from seaformer_jax.training.checkpoint import had_checkpoints, saved_steps


def prepare_workdir(workdir: pathlib.Path, config: ConfigDict, class_names: Sequence[str]) -> None:
    """Creates the work directory of a run, or checks that an existing one belongs to the same run.

    A run that ended before its first checkpoint has nothing to resume, so any config may take over its folder.
    With several processes, only the first one writes.

    Args:
        workdir: Work directory.
        config: Config of the run. `config.distributed` is saved and compared as its default: it says how the hosts
            find each other, which differs between them.
        class_names: Names of the classes, in the order of the logits.
    Raises:
        UserError: The folder cannot be written, it holds checkpoints of another config, or its checkpoints are gone.
    """
    if jax.process_index() > 0:
        return
    config = config.copy_and_resolve_references()
    config.distributed = configs.default().distributed
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        path = workdir / "config.json"
        steps = saved_steps(workdir)
        if had_checkpoints(workdir) and not steps:
            raise UserError(
                f"the checkpoints of the run in {workdir} are gone, so it cannot go on; put its folder `checkpoints` "
                "back, or start again in a new --workdir"
            )
        if path.exists() and steps:
            _check_same(path, config)
        else:
            config_file.save(config, path)
        (workdir / "labels.json").write_text(json.dumps(list(class_names)) + "\n")
    except OSError as error:
        raise UserError(f"cannot write to --workdir {workdir}: {error.strerror}; choose another") from error


def read(workdir: pathlib.Path) -> tuple[ConfigDict, list[str]]:
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


def _read_config(path: pathlib.Path) -> ConfigDict:
    with _naming(path):
        config = config_file.load(path)
        config_check.check(config)
    return config


@contextlib.contextmanager
def _naming(path: pathlib.Path) -> Iterator[None]:
    """Turns what goes wrong while the file `path` is read into a UserError that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(
            f"{path.parent} is not the workdir of a run: no {path.name}; expected a folder that training or "
            "convert.from_torch wrote"
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError) as error:  # Broken JSON, bytes that are not UTF-8, and wrong values.
        raise UserError(f"{path} is damaged: {error}; correct it, or restore a copy of it") from error


def _check_same(path: pathlib.Path, config: ConfigDict) -> None:
    """Raises UserError if the config in the file at `path` differs from `config`."""
    before, now = (
        flatten_dict(c.to_dict(), sep=".")
        for c in (_read_config(path), config_file.complete(config.to_dict()))
    )
    differing = [
        f"{key} was {before.get(key)!r}, now {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if differing:
        raise UserError(
            f"{path.parent} belongs to a run with another config: {'; '.join(differing)}. "
            "Use its values to resume it, or a new --workdir"
        )
