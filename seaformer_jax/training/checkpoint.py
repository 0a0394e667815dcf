"""Checkpoints in a workdir. This is the only file that uses orbax.

Layout: `<workdir>/checkpoints/<step>/{state,clock,metrics}`. The state is a dictionary of arrays, readable without
our classes. The position in the data needs no entry of its own: batch t is a function of the seed and t.
"""

import contextlib
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from flax import nnx
from ml_collections import ConfigDict

from seaformer_jax.errors import UserError
from seaformer_jax.training.state import TrainState

_MARGIN = 1.1  # Free disk space required, as a multiple of the size of a checkpoint.


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
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state._asdict()), clock=ocp.args.JsonSave(clock)
        )
        self._manager.save(step, args=args, metrics=metrics, force=True)

    def restore(self, template: TrainState) -> tuple[TrainState, dict[str, float]] | None:
        """Returns (state, clock) of the newest readable checkpoint, or None if there are no checkpoints.

        A damaged checkpoint is reported and moved aside, and the one before it is tried.

        Args:
            template: State with the shapes, dtypes and shardings to restore into. The number of devices may differ
                from that of the run that saved.
        Raises:
            UserError: There are checkpoints, but none can be read.
        """
        damaged = []
        for step in reversed(self.steps()):
            try:
                return self._restore(step, template)
            except Exception as error:  # Damage can raise any error in orbax or tensorstore.
                logging.warning(
                    "checkpoint %d is damaged (%s): using the one before it", step, _first_line(error)
                )
                damaged.append(self._move_aside(step))
        if damaged:
            raise UserError(
                f"no checkpoint in {self.folder} can be read; moved aside: {', '.join(damaged)}. "
                "Start again in a new workdir; init_from may name weights that were exported from this one"
            )
        return None

    def _restore(self, step: int, template: TrainState) -> tuple[TrainState, dict[str, float]]:
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(jax.tree.map(_abstract, template._asdict())),
            clock=ocp.args.JsonRestore(),
        )
        restored = self._manager.restore(step, args=args)
        return TrainState(**restored.state), restored.clock

    def _move_aside(self, step: int) -> str:
        """Moves a damaged checkpoint out of the folder of checkpoints and returns its new name."""
        target = self.folder.parent / f"damaged-checkpoint-{step}"
        if jax.process_index() == 0:
            shutil.rmtree(target, ignore_errors=True)
            (self.folder / str(step)).rename(target)
        # The manager caches the list of steps and must notice that one is gone.
        self._manager.reload()
        return target.name

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


def _abstract(array: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=array.sharding)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def saved_steps(workdir: pathlib.Path) -> list[int]:
    """Returns the steps of the checkpoints in `workdir`, in ascending order; [] if there are none."""
    # Only digits: orbax gives unfinished checkpoints other names.
    return sorted(int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit())


def load_weights(workdir: pathlib.Path, use_ema: bool = True) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Returns (step, params, batch_stats) of the newest checkpoint in `workdir`, as NumPy arrays.

    Args:
        workdir: Work directory of a training run or of `convert.from_torch`.
        use_ema: Whether to return the averaged weights, if the run has them.
    Raises:
        UserError: There is no checkpoint, or the newest one is damaged.
    """
    folder, steps = (workdir / "checkpoints").absolute(), saved_steps(workdir)
    if not steps:
        raise UserError(
            f"no checkpoint in {folder}; train first, or convert one with `python -m convert.from_torch`"
        )
    try:
        state = _read_weights(folder / str(steps[-1]) / "state", use_ema)
    except Exception as error:  # Damage can raise any error in orbax or tensorstore.
        raise UserError(
            f"{folder / str(steps[-1])} is damaged ({_first_line(error)}); remove it to use the one before it"
        ) from error
    return steps[-1], state["params"], state["batch_stats"]


def _read_weights(path: pathlib.Path, use_ema: bool) -> dict[str, Any]:
    """Reads {"params", "batch_stats"} from the state at `path`, but not the optimiser's state."""
    # A Checkpointer would look for the metadata of a whole checkpoint in `path`, which is only a part of one.
    with contextlib.closing(ocp.PyTreeCheckpointHandler()) as handler:
        tree = handler.metadata(path).tree
        keys = ["ema"] if use_ema and tree.get("ema") else ["params", "batch_stats"]
        wanted = {key: tree[key] for key in keys}
        # NumPy arrays, because the devices of the run that saved may not exist here.
        kinds = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
        args = ocp.args.PyTreeRestore(item=wanted, restore_args=kinds, partial_restore=True)
        state = handler.restore(path, args=args)
    # The files have the text "0", "1", ... as keys of list entries; nnx expects integers.
    return nnx.restore_int_paths(state.get("ema", state))
