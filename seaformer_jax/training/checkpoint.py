"""Checkpoints in a workdir, through orbax; the only file that knows it.

Layout: `<workdir>/checkpoints/<step>/{state,clock,metrics}`. The state is a dictionary of arrays, readable
without our classes. The data's position needs no entry of its own: batch t is a function of the seed and t.
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

_MARGIN = 1.1  # Free space wanted / size of a checkpoint.


class Checkpoints:
    """Saves and restores training states; keeps the newest `config.keep` and the best one.

    Args:
        workdir: of the run.
        config: `config.checkpoint`.
        best_metric: of the metrics that `save` is given; larger is better.
    """

    def __init__(self, workdir: pathlib.Path, config: ConfigDict, best_metric: str):
        self.folder = (workdir / "checkpoints").absolute()

        def score(metrics: dict[str, float]) -> float:
            return metrics[best_metric]

        policies = ocp.checkpoint_managers
        newest = policies.LatestN(config.keep)
        best = policies.BestN(get_metric_fn=score, n=1, keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            best_fn=score,  # Without it the metrics are not written.
            preservation_policy=policies.AnyPreservationPolicy([newest, best]),
            save_decision_policy=policies.FixedIntervalPolicy(1),
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def save(
        self, state: TrainState, step: int, clock: dict[str, float], metrics: dict[str, float] | None
    ) -> None:
        """Writes in the background; a run that is killed meanwhile resumes from the one before.

        Raises:
            UserError: the disk has no room for it.
        """
        self.check_space(state)
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state._asdict()), clock=ocp.args.JsonSave(clock)
        )
        self._manager.save(step, args=args, metrics=metrics, force=True)

    def restore(self, template: TrainState) -> tuple[TrainState, dict[str, float]] | None:
        """Returns (state, clock) of the newest checkpoint that can be read, or None where there is none.

        A damaged one is reported and moved aside, and the one before it is used.

        Args:
            template: a state of the shapes, dtypes and shardings to restore into; the number of devices may
              differ from the run that saved.
        Raises:
            UserError: there are checkpoints, but none can be read.
        """
        damaged = []
        for step in reversed(self.steps()):
            try:
                return self._restore(step, template)
            except Exception as error:  # Orbax and tensorstore raise whatever the damage leads to.
                logging.warning(
                    "checkpoint %d is damaged (%s): using the one before it", step, _first_line(error)
                )
                damaged.append(self._move_aside(step))
        if damaged:
            raise UserError(
                f"no checkpoint in {self.folder} can be read; moved aside: {', '.join(damaged)}. "
                "Start again in a new workdir, or name this one's exported weights in init_from"
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
        target = self.folder.parent / f"damaged-checkpoint-{step}"
        if jax.process_index() == 0:
            shutil.rmtree(target, ignore_errors=True)
            (self.folder / str(step)).rename(target)
        self._manager.reload()
        return target.name

    def check_space(self, state: TrainState) -> None:
        """Raises UserError where the disk has no room for a checkpoint of `state`."""
        needed = _MARGIN * sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise UserError(
                f"{self.folder} has {free / 1e6:.0f} MB free and a checkpoint takes {needed / 1e6:.0f} MB; "
                "make room or choose another --workdir, then run the same command to resume"
            )

    def wait(self) -> None:
        """Blocks until what `save` began is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


def _abstract(array: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=array.sharding)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def saved_steps(workdir: pathlib.Path) -> list[int]:
    """Returns the steps of the checkpoints in `workdir`, rising; [] where there are none."""
    return sorted(int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit())


def load_weights(workdir: pathlib.Path, use_ema: bool = True) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Returns (step, params, batch_stats) of the newest checkpoint in `workdir`, as NumPy arrays.

    Args:
        workdir: of a training run, or of `convert.from_torch`.
        use_ema: the averaged weights, where the run has them.
    Raises:
        UserError: there is no checkpoint, or the newest is damaged.
    """
    folder, steps = (workdir / "checkpoints").absolute(), saved_steps(workdir)
    if not steps:
        raise UserError(
            f"no checkpoint in {folder}; train first, or convert one with `python -m convert.from_torch`"
        )
    try:
        state = _read_weights(folder / str(steps[-1]) / "state", use_ema)
    except Exception as error:
        raise UserError(
            f"{folder / str(steps[-1])} is damaged ({_first_line(error)}); remove it to use the one before it"
        ) from error
    return steps[-1], state["params"], state["batch_stats"]


def _read_weights(path: pathlib.Path, use_ema: bool) -> dict[str, Any]:
    # Not a Checkpointer: that looks for the description of a whole checkpoint in `path`, which is a part of one.
    with contextlib.closing(ocp.PyTreeCheckpointHandler()) as handler:
        tree = handler.metadata(path).tree
        keys = ["ema"] if use_ema and tree.get("ema") else ["params", "batch_stats"]
        wanted = {key: tree[key] for key in keys}
        # As NumPy arrays: the devices that they were saved from may not be here.
        kinds = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
        args = ocp.args.PyTreeRestore(item=wanted, restore_args=kinds, partial_restore=True)
        state = handler.restore(path, args=args)
    return nnx.restore_int_paths(state.get("ema", state))
