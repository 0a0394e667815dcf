"""Runs a model over the validation batches and adds up its metrics."""

from collections.abc import Callable, Iterator

import jax
from absl import logging
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from seaformer_jax.errors import UserError
from seaformer_jax.mesh import put_batch
from seaformer_jax.metrics import merge, over_devices
from seaformer_jax.types import Batch, Tree

EvalMetrics = Callable[[nnx.Module, Batch], Tree]


def make_step(graphdef: nnx.GraphDef, eval_metrics: EvalMetrics, mesh: Mesh) -> jax.stages.Wrapped:
    """Returns the jitted function (params, batch_stats, batch) -> metrics of the whole batch.

    The arguments are those of `Evaluator`.
    """

    def metrics_of_own_rows(params: Tree, batch_stats: Tree, batch: Batch) -> Tree:
        return over_devices(eval_metrics(nnx.merge(graphdef, params, batch_stats), batch), "data")

    # Each device evaluates its own rows by itself, so that a task may loop over its images one by one.
    weights, rows = PartitionSpec(), PartitionSpec("data")
    step = jax.shard_map(
        metrics_of_own_rows,
        mesh=mesh,
        in_specs=(weights, weights, rows),
        out_specs=weights,
        check_vma=False,
    )
    return jax.jit(step)


class Evaluator:
    """Computes the merged metrics of a whole data set.

    The result does not depend on the batch size or on the number of devices or hosts.

    Args:
        graphdef: The model's structure, from `nnx.graphdef`.
        eval_metrics: (model, batch) -> metrics of `metrics.py`, over the images where `batch["mask"]` is true.
            The metrics of several batches are merged. The batch may hold the rows of one device only.
        open_batches: Returns an iterator over this process's rows of the batches, with `mask` and `skipped`.
        mesh: Mesh of the devices to use.
    """

    def __init__(
        self,
        graphdef: nnx.GraphDef,
        eval_metrics: EvalMetrics,
        open_batches: Callable[[], Iterator[Batch]],
        mesh: Mesh,
    ):
        self._step = make_step(graphdef, eval_metrics, mesh)
        self._open_batches, self._mesh = open_batches, mesh

    def __call__(self, params: Tree, batch_stats: Tree) -> Tree:
        """Returns the merged metrics as NumPy arrays on the host, in int64 and float64.

        Raises:
            UserError: The validation split has no images.
        """
        total, skipped, ahead = None, 0, None
        batches = self._open_batches()
        try:
            for batch in batches:
                # Only the host counts the skipped images; the device does not need the entry.
                skipped += int(batch.pop("skipped").sum())
                metrics = self._step(params, batch_stats, put_batch(self._mesh, batch))
                # Metrics are fetched one batch late, so that the device works while the host decodes.
                total, ahead = (merge(total, ahead) if ahead is not None else None), metrics
        finally:
            batches.close()
        if ahead is None:
            raise UserError("the validation split has no images; check data.root and data.val_split")
        if skipped:
            logging.warning("evaluation skipped %d unreadable images", skipped)
        return merge(total, ahead)
