"""Checkpoints in a workdir. This file and `checkpoint_files.py` are the only ones that use orbax.

Layout: `<workdir>/checkpoints/<step>/{state,clock,checksums,metrics}`. The state is a dictionary of arrays, readable
without our classes. The position in the data needs no entry of its own: batch t is a function of the seed and t.
"""

import pathlib
import shutil
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from ml_collections import ConfigDict

from seaformer_jax import mesh as meshes
from seaformer_jax.errors import UserError
from seaformer_jax.training import checkpoint_choice
from seaformer_jax.training.checkpoint_files import (
    Damaged,
    Unavailable,
    checksums,
    read_json,
    read_state,
    read_weights,
)
from seaformer_jax.training.state import TrainState
from seaformer_jax.types import Tree

_MARGIN = 1.1  # Free disk space required, as a multiple of the size of a checkpoint.
_NOTE = "has_checkpoints"  # File in the workdir, beside the folder of checkpoints, so that it outlives that folder.
# How reading a checkpoint can end, from the best to the worst.
_KINDS = (type(None), Damaged, Unavailable, UserError)


class Checkpoints:
    """Saves and restores training states; keeps the newest `config.keep` checkpoints and the best one.

    Args:
        workdir: Work directory of the run.
        config: `config.checkpoint`.
        best_metric: Key of the metrics given to `save` that decides which checkpoint is the best; larger is better.
    """

    def __init__(self, workdir: pathlib.Path, config: ConfigDict, best_metric: str):
        self.folder = (workdir / "checkpoints").absolute()

        def score(metrics: dict[str, float]) -> float:
            return metrics[best_metric]

        policies = ocp.checkpoint_managers
        newest = policies.LatestN(config.keep)
        # A checkpoint without metrics was saved without an evaluation and cannot be the best.
        best = policies.BestN(get_metric_fn=score, n=1, keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            best_fn=score,  # Without it, orbax does not write the metrics.
            preservation_policy=policies.AnyPreservationPolicy([newest, best]),
            save_decision_policy=policies.FixedIntervalPolicy(1),  # The training loop decides when to save.
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options)
        self._damaged: set[int] = set()

    def steps(self) -> list[int]:
        """Returns the steps of the checkpoints, in ascending order."""
        return sorted(self._manager.all_steps())

    def save(
        self, state: TrainState, step: int, clock: dict[str, float], metrics: dict[str, float] | None
    ) -> None:
        """Saves a checkpoint in the background.

        If the run is killed before the files are complete, it resumes from the checkpoint before.

        Args:
            state: State after `step` updates.
            step: Number of the checkpoint.
            clock: Seconds per purpose (`reporting.Clock`).
            metrics: Validation metrics of `state`; None if it was not evaluated.
        Raises:
            UserError: The disk has no room for the checkpoint.
        """
        self.check_space(state)
        self._note_checkpoints()
        if step in self._damaged:  # The run comes again to the step of a checkpoint that cannot be read.
            self._manager.delete(step)
            self._damaged.discard(step)
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state._asdict()),
            clock=ocp.args.JsonSave(clock),
            checksums=ocp.args.JsonSave(checksums(state._asdict())),
        )
        self._manager.save(step, args=args, metrics=metrics, force=True)

    def restore(self, template: TrainState) -> tuple[TrainState, dict[str, float]] | None:
        """Returns (state, clock) of the newest readable checkpoint, or None if there are no checkpoints.

        A damaged checkpoint is logged and left where it is, and the one before it is used. With several processes,
        all of them use the same one: it must be readable to each.

        Args:
            template: A state with the shapes, dtypes and shardings to restore into. The number of devices may differ
                from that of the run that saved.
        Raises:
            UserError: The newest checkpoint belongs to another model or optimiser, or cannot be read now, or there
                are checkpoints and all are damaged. Nothing on disk is changed.
        """
        steps = meshes.of_first_process(self.steps())
        for step in reversed(steps):
            folder = self.folder / str(step)
            state, clock, trouble = _read(folder, template)
            # One process may see damage or a failing disk that the others do not see: the worst counts for all.
            kind = meshes.largest(_KINDS.index(type(trouble)))
            if kind == _KINDS.index(type(None)):
                return _on_devices(state, template), clock
            reason = trouble if type(trouble) is _KINDS[kind] else "seen by another process"
            if _KINDS[kind] is not Damaged:
                raise trouble if isinstance(trouble, UserError) else _not_now(folder, reason)
            logging.warning("checkpoint %d is damaged (%s): using the one before it", step, reason)
            self._damaged.add(step)
        if steps:
            raise UserError(
                f"all checkpoints in {self.folder} are damaged (steps {', '.join(map(str, steps))}); nothing was "
                "changed. Restore a copy of them, or start again in a new --workdir"
            )
        return None

    def check_space(self, state: TrainState) -> None:
        """Raises UserError if the disk has no room for a checkpoint of `state`."""
        needed = _MARGIN * sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise UserError(
                f"{self.folder} has {free / 1e6:.0f} MB free and a checkpoint takes {needed / 1e6:.0f} MB; "
                "make room or choose another --workdir, then run the same command to resume"
            )

    def wait(self) -> None:
        """Blocks until every started `save` is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for every started `save` and closes orbax's manager."""
        self._manager.close()
        self._note_checkpoints()

    def _note_checkpoints(self) -> None:
        """Notes in the workdir that the run has a checkpoint, once it is complete; see `had_checkpoints`."""
        workdir = self.folder.parent
        steps = saved_steps(workdir)
        if steps and jax.process_index() == 0 and not had_checkpoints(workdir):
            (workdir / _NOTE).write_text(f"This run has had checkpoints since step {steps[0]}.\n")


def _read(
    folder: pathlib.Path, template: TrainState
) -> tuple[Tree | None, dict[str, float] | None, Exception | None]:
    """Returns (state, clock, None), or (None, None, what went wrong)."""
    try:
        return read_state(folder, template._asdict()), read_json(folder, "clock"), None
    except UserError as error:
        return None, None, UserError(str(error))
    except (Damaged, Unavailable) as error:
        return None, None, error


def _on_devices(state: Tree, template: TrainState) -> TrainState:
    """Puts every array where that of the template is; each process holds the whole state."""
    return TrainState(
        **jax.tree.map(
            lambda array, wanted: jax.make_array_from_process_local_data(
                wanted.sharding, array.astype(wanted.dtype)
            ),
            state,
            template._asdict(),
        )
    )


def _not_now(folder: pathlib.Path, reason: object) -> UserError:
    return UserError(
        f"{folder} cannot be read now ({reason}); nothing was changed, run the same command again"
    )


def saved_steps(workdir: pathlib.Path) -> list[int]:
    """Returns the steps of the checkpoints in `workdir`, in ascending order; [] if there are none."""
    # Only digits: orbax gives unfinished checkpoints other names.
    return sorted(int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit())


def had_checkpoints(workdir: pathlib.Path) -> bool:
    """Returns whether a checkpoint was ever completed in `workdir`, even if none is left."""
    return (workdir / _NOTE).exists()


def load_weights(
    workdir: pathlib.Path, use_ema: bool = True, which: str = "last", best_metric: str = ""
) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Returns (step, params, batch_stats) of a checkpoint in `workdir`, as NumPy arrays.

    Args:
        workdir: Work directory of a training run or of `convert.from_torch`.
        use_ema: Whether to return the averaged weights, if the run has them.
        which: "last", "best" or a step; see `checkpoint_choice.choose`.
        best_metric: Key of the metrics that decides which checkpoint is the best.
    Raises:
        UserError: There is no such checkpoint, or it cannot be read.
    """
    folder, steps = (workdir / "checkpoints").absolute(), saved_steps(workdir)
    if not steps:
        raise UserError(
            f"no checkpoint in {folder}; train first, or convert one with `python -m convert.from_torch`"
        )
    steps = checkpoint_choice.choose(folder, steps, which, best_metric)
    for step in steps:
        try:
            state = read_weights(folder / str(step), use_ema)
        except Unavailable as error:
            raise _not_now(folder / str(step), error) from error
        except Damaged as error:
            logging.warning("checkpoint %d is damaged (%s): it is not used", step, error)
        else:
            return step, state["params"], state["batch_stats"]
    damaged = (
        f"all checkpoints in {folder} are" if which == "last" else f"checkpoint {steps[0]} in {folder} is"
    )
    raise UserError(
        f"{damaged} damaged (steps {', '.join(map(str, steps))}); restore a copy, or choose another --checkpoint of "
        f"the steps {', '.join(map(str, saved_steps(workdir)))}"
    )
