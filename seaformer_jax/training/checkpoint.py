"""Checkpoints in a workdir. This file and `checkpoint_files.py` are the only ones that use orbax.

Layout: `<workdir>/checkpoints/<step>/{state,clock,checksums,metrics}`. The state is a dictionary of arrays, readable
without our classes. The position in the data needs no entry of its own: batch t is a function of the seed and t.
"""

import contextlib
import math
import shutil
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from seaformer_jax import mesh as meshes
from seaformer_jax.errors import UserError
from seaformer_jax.paths import in_bucket, real
from seaformer_jax.training.checkpoint_choice import choose, listing
from seaformer_jax.training.checkpoint_files import (
    Damaged,
    Unavailable,
    atomicity,
    checksums,
    finished,
    not_now,
    read_weights,
    reason_of,
    unfinished,
)
from seaformer_jax.training.checkpoint_restore import restore_newest
from seaformer_jax.training.state import TrainState

# Free disk space required for a checkpoint: the bytes of its arrays with a margin, and what files and metadata take.
# Measured on ext4: 0.11 MB for one number, and 1500 bytes per array for the 1179 arrays of a SeaFormer-Tiny's state.
_MARGIN, _BYTES_PER_ARRAY, _FIXED_BYTES = 1.1, 2**11, 2**18
_NOTE = "has_checkpoints"  # File in the workdir, beside the folder of checkpoints, so that it outlives that folder.


class Checkpoints:
    """Saves and restores training states; keeps the newest `config.keep` checkpoints and the best one.

    Args:
        workdir: Work directory of the run.
        config: `config.checkpoint`.
        best_metric: Key of the metrics given to `save` that decides which checkpoint is the best; larger is better.
    """

    def __init__(self, workdir: epath.Path, config: ConfigDict, best_metric: str):
        self.folder = real(workdir / "checkpoints")

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
            # Otherwise the threads that write wait five minutes for a folder that could not be created.
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            atomicity_options=atomicity(self.folder),
        )
        self._damaged: set[int] = set()
        self._saving = 0  # Step of the last `save`, which may still go on in the background.
        self._remove_unfinished()
        with self._failure_as_one_line():
            self._manager = ocp.CheckpointManager(self.folder, options=options)

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
            UserError: This checkpoint or the one before it cannot be written, e.g. because the disk is full.
        """
        self.wait()
        self._saving = step
        with self._failure_as_one_line():
            self.check_space(state)
            if step in self._damaged:  # The run comes again to the step of a checkpoint that cannot be read.
                self._manager.delete(step)
                self._damaged.discard(step)
            # The arguments of JsonSave are written by the first process only.
            sums = checksums(state._asdict()) if jax.process_index() == 0 else {}
            args = ocp.args.Composite(
                state=ocp.args.StandardSave(state._asdict()),
                clock=ocp.args.JsonSave(clock),
                checksums=ocp.args.JsonSave(sums),
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
        if not steps:
            return None
        step, state, clock = restore_newest(self.folder, steps, template)
        self._damaged = {damaged for damaged in steps if damaged > step}
        return state, clock

    def was_evaluated(self, step: int) -> bool:
        """Returns whether the checkpoint of `step` was saved with validation metrics; all processes agree."""
        return bool(meshes.of_first_process([(self.folder / str(step) / "metrics").exists()])[0])

    def check_space(self, state: TrainState) -> None:
        """Raises UserError if the disk has no room for a checkpoint of `state`."""
        arrays = jax.tree.leaves(state)
        needed = (
            _MARGIN * sum(array.nbytes for array in arrays) + _BYTES_PER_ARRAY * len(arrays) + _FIXED_BYTES
        )
        free = math.inf if in_bucket(self.folder) else shutil.disk_usage(self.folder).free
        if free < needed:
            raise UserError(
                f"{self.folder} has {free / 1e6:.1f} MB free and a checkpoint takes {needed / 1e6:.1f} MB; "
                "make room or choose another --workdir, then run the same command to resume"
            )

    def wait(self) -> None:
        """Blocks until every started `save` is on disk.

        Raises:
            UserError: A checkpoint cannot be written.
        """
        with self._failure_as_one_line():
            self._manager.wait_until_finished()
            self._note_checkpoints()

    def close(self) -> None:
        """Waits for every started `save` and closes orbax's manager.

        Raises:
            UserError: A checkpoint cannot be written.
        """
        with self._failure_as_one_line():
            try:
                self.wait()
            finally:
                self._manager.close()

    @contextlib.contextmanager
    def _failure_as_one_line(self) -> Iterator[None]:
        """Turns what goes wrong while a checkpoint is written, here or in the background, into a UserError."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # Orbax, tensorstore and the file system raise whatever fails first.
            kept = listing(saved_steps(self.folder.parent)) or "none"
            raise UserError(
                f"the checkpoint of step {self._saving} cannot be written to {self.folder} ({reason_of(error)}); "
                f"checkpoints kept: {kept}. Free space or make the folder writable, then run the same command to "
                "resume"
            ) from error

    def _remove_unfinished(self) -> None:
        """Removes what saves that were killed or failed left behind: each takes the space of a checkpoint."""
        if jax.process_index() == 0:
            for path in unfinished(self.folder):
                with contextlib.suppress(OSError):
                    path.rmtree()

    def _note_checkpoints(self) -> None:
        """Notes in the workdir that the run has a checkpoint, once it is complete; see `had_checkpoints`."""
        workdir = self.folder.parent
        steps = saved_steps(workdir)
        if steps and jax.process_index() == 0 and not had_checkpoints(workdir):
            (workdir / _NOTE).write_text(f"This run has had checkpoints since step {steps[0]}.\n")


def saved_steps(workdir: epath.Path) -> list[int]:
    """Returns the steps of the checkpoints in `workdir`, in ascending order; [] if there are none."""
    return finished(workdir / "checkpoints")


def had_checkpoints(workdir: epath.Path) -> bool:
    """Returns whether a checkpoint was ever completed in `workdir`, even if none is left."""
    return (workdir / _NOTE).exists()


def load_weights(
    workdir: epath.Path, use_ema: bool = True, which: str = "last", best_metric: str = ""
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
    folder, steps = real(workdir / "checkpoints"), saved_steps(workdir)
    if not steps:
        raise UserError(
            f"no checkpoint in {folder}; train first, or convert one with `python -m convert.from_torch`"
        )
    steps = choose(folder, steps, which, best_metric)
    for step in steps:
        try:
            state = read_weights(folder / str(step), use_ema)
        except Unavailable as error:
            raise not_now(folder / str(step), error) from error
        except Damaged as error:
            logging.warning("checkpoint %d is damaged (%s): it is not used", step, error)
        else:
            return step, state["params"], state["batch_stats"]
    damaged = (
        f"all checkpoints in {folder} are" if which == "last" else f"checkpoint {steps[0]} in {folder} is"
    )
    raise UserError(
        f"{damaged} damaged (steps {listing(steps)}); restore a copy, or choose another --checkpoint of "
        f"the steps {listing(saved_steps(workdir))}"
    )
