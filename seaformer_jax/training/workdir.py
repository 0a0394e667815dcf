"""The work directory of a run: config.json, labels.json, metrics.jsonl, tensorboard/, checkpoints/."""

import json
import pathlib
from collections.abc import Sequence

import jax
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from seaformer_jax import config as configs
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
            configs.save(config, path)
        (workdir / "labels.json").write_text(json.dumps(list(class_names)) + "\n")
    except OSError as error:
        raise UserError(f"cannot write to --workdir {workdir}: {error.strerror}; choose another") from error


def read(workdir: pathlib.Path) -> tuple[ConfigDict, list[str]]:
    """Returns the config and the class names of the run in `workdir`; raises UserError if there is none."""
    try:
        return configs.load(workdir / "config.json"), json.loads((workdir / "labels.json").read_text())
    except OSError as error:
        raise UserError(
            f"{workdir} is not the workdir of a run: no {pathlib.Path(error.filename).name}; expected a folder that "
            "training or convert.from_torch wrote"
        ) from error


def _check_same(path: pathlib.Path, config: ConfigDict) -> None:
    """Raises UserError if the config in the file at `path` differs from `config`."""
    before, now = (flatten_dict(c.to_dict(), sep=".") for c in (configs.load(path), config))
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
