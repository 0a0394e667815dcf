"""Runs a model over the validation batches and adds up its metrics."""

from collections.abc import Callable, Iterator

import jax
from absl import logging
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from seaformer_jax.errors import UserError
from seaformer_jax.mesh import put_batch
from seaformer_jax.metrics import merge
from seaformer_jax.types import Batch, Tree


class Evaluator:
    """Merged metrics of a whole data set; no result depends on batch size, devices or hosts.

    Args:
        graphdef: of the model, as `nnx.graphdef` gives it.
        eval_metrics: (model, batch) -> metrics of `metrics.py`, over the images where `batch["mask"]` is true.
            Metrics
          of several batches are added. A batch may be the rows of one device.
        open_batches: returns an iterator over this process's rows of the batches, with `mask` and `skipped`.
        mesh: of the devices to use.
    """

    def __init__(
        self,
        graphdef: nnx.GraphDef,
        eval_metrics: Callable[[nnx.Module, Batch], Tree],
        open_batches: Callable[[], Iterator[Batch]],
        mesh: Mesh,
    ):
        def metrics_of_own_rows(params: Tree, batch_stats: Tree, batch: Batch) -> Tree:
            return jax.lax.psum(eval_metrics(nnx.merge(graphdef, params, batch_stats), batch), "data")

        # Every device by itself, so that a task may go through its images one by one.
        weights, rows = PartitionSpec(), PartitionSpec("data")
        step = jax.shard_map(
            metrics_of_own_rows,
            mesh=mesh,
            in_specs=(weights, weights, rows),
            out_specs=weights,
            check_vma=False,
        )
        self._step = jax.jit(step)
        self._open_batches, self._mesh = open_batches, mesh

    def __call__(self, params: Tree, batch_stats: Tree) -> Tree:
        """Returns the merged metrics, on the host in int64 and float64.

        Raises:
            UserError: there is nothing to evaluate.
        """
        total, skipped, ahead = None, 0, None
        batches = self._open_batches()
        try:
            for batch in batches:
                skipped += int(batch.pop("skipped").sum())
                metrics = self._step(params, batch_stats, put_batch(self._mesh, batch))
                # Fetched one batch late, so that the device works while the host decodes.
                total, ahead = (merge(total, ahead) if ahead is not None else None), metrics
        finally:
            batches.close()
        if ahead is None:
            raise UserError("the validation split has no images; check data.root and data.val_split")
        if skipped:
            logging.warning("evaluation skipped %d unreadable images", skipped)
        return merge(total, ahead)
