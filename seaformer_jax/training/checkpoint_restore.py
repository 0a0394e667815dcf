"""Restores the newest readable checkpoint of a run; several processes agree which one it is."""

from collections.abc import Sequence

import jax
from absl import logging
from etils import epath

from seaformer_jax import mesh as meshes
from seaformer_jax.errors import UserError
from seaformer_jax.training.checkpoint_choice import listing
from seaformer_jax.training.checkpoint_files import Damaged, Unavailable, not_now, read_json, read_state
from seaformer_jax.training.state import TrainState
from seaformer_jax.types import Tree

# How reading a checkpoint can end, from the best to the worst.
_KINDS = (type(None), Damaged, Unavailable, UserError)


def restore_newest(
    folder: epath.Path, steps: Sequence[int], template: TrainState
) -> tuple[int, TrainState, dict[str, float]]:
    """Returns (step, state, clock) of the newest checkpoint that every process can read.

    Args:
        folder: Folder of the checkpoints.
        steps: Their steps, in ascending order.
        template: A state with the shapes, dtypes and shardings to restore into.
    Raises:
        UserError: As in `Checkpoints.restore`.
    """
    for step in reversed(steps):
        state, clock, trouble = _read(folder / str(step), template)
        # One process may see damage or a failing disk that the others do not see: the worst counts for all.
        kind = _KINDS[meshes.largest(_KINDS.index(type(trouble)))]
        if kind is type(None):
            return step, _on_devices(state, template), clock
        reason = trouble if type(trouble) is kind else "seen by another process"
        if kind is not Damaged:
            raise trouble if isinstance(trouble, UserError) else not_now(folder / str(step), reason)
        logging.warning("checkpoint %d is damaged (%s): using the one before it", step, reason)
    raise UserError(
        f"all checkpoints in {folder} are damaged (steps {listing(steps)}); nothing was changed. Restore a copy of "
        "them, or start again in a new --workdir"
    )


def _read(
    folder: epath.Path, template: TrainState
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
