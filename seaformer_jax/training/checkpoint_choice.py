"""Chooses one of the checkpoints of a run: the last, the best or that of a step."""

from collections.abc import Sequence

from etils import epath

from seaformer_jax.errors import UserError
from seaformer_jax.training.checkpoint_files import Damaged, Unavailable, read_metrics


def choose(folder: epath.Path, steps: Sequence[int], which: str, best_metric: str) -> list[int]:
    """Returns the steps of the checkpoints to try, in this order: the first one that can be read is to be used.

    Args:
        folder: Folder of the checkpoints.
        steps: Steps of the checkpoints in it, in ascending order.
        which: "last": the newest one, or the newest before it if it is damaged. "best": the one with the highest
            `best_metric`. A number: the one of that step.
        best_metric: Key of the validation metrics that are stored with a checkpoint.
    Raises:
        UserError: There is no such checkpoint.
    """
    if which == "last":
        return list(reversed(steps))
    if which == "best":
        return [_best(folder, steps, best_metric)]
    if which not in map(str, steps):
        raise UserError(
            f"--checkpoint is {which!r}; expected last, best or a step in {folder}: {listing(steps)}"
        )
    return [int(which)]


def _best(folder: epath.Path, steps: Sequence[int], best_metric: str) -> int:
    """Returns the step with the highest `best_metric`, the newest one of equals."""
    scores = {}
    for step in steps:
        try:
            metrics = read_metrics(folder / str(step))
        except (Damaged, Unavailable) as error:
            raise UserError(
                f"the metrics of {folder / str(step)} cannot be read ({error}), so the best checkpoint is unknown; "
                f"choose a step with --checkpoint: {listing(steps)}"
            ) from error
        if best_metric in metrics:
            scores[step] = metrics[best_metric]
    if not scores:
        raise UserError(
            f"no checkpoint in {folder} was evaluated, so none is the best; choose a step with --checkpoint: "
            f"{listing(steps)}"
        )
    return max(scores, key=lambda step: (scores[step], step))


def listing(steps: Sequence[int]) -> str:
    """Returns e.g. `500, 1000`."""
    return ", ".join(map(str, steps))
