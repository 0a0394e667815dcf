"""Metrics that can be merged: sums and counts, which are added, and results of single images, which are joined.

Results therefore do not depend on the batch size or on the number of devices or hosts. JAX is imported where it is
used, so that a device without it can score a model, too.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import jax


class Mean(NamedTuple):
    """A mean over examples: `total / count`."""

    total: "jax.Array | np.ndarray"
    count: "jax.Array | np.ndarray"

    @classmethod
    def of(cls, values: "jax.Array", mask: "jax.Array") -> "Mean":
        """Sums values [B] where mask [B] is true; values that are masked out may be NaN."""
        import jax.numpy as jnp

        return cls(jnp.where(mask, values, 0).sum(), mask.sum())

    def compute(self) -> float:
        """Returns the mean; NaN if nothing was counted."""
        return float(self.total / self.count) if self.count else float("nan")


class ConfusionMatrix(NamedTuple):
    """Numbers of examples or pixels for each pair of a true and a predicted class.

    Attributes:
        counts: Integer [num_classes, num_classes]; the first axis is the true class, the second the predicted one.
    """

    counts: "jax.Array | np.ndarray"

    @classmethod
    def of(
        cls, labels: "jax.Array", predictions: "jax.Array", mask: "jax.Array", num_classes: int
    ) -> "ConfusionMatrix":
        """Counts integer labels and predictions [...] where mask [...] is true.

        Pairs with a value of num_classes or more, such as the ignored label 255, are not counted.
        """
        import jax.numpy as jnp

        zeros = jnp.zeros((num_classes, num_classes), jnp.int32)
        return cls(zeros.at[labels, predictions].add(mask.astype(jnp.int32), mode="drop"))

    def recall(self) -> np.ndarray:
        """Returns the share of each true class that was predicted right, [num_classes]; NaN for an absent class."""
        return _ratio(np.diag(self.counts), self.counts.sum(1))

    def precision(self) -> np.ndarray:
        """Returns the share of each predicted class that is right, [num_classes]; NaN for a class never predicted."""
        return _ratio(np.diag(self.counts), self.counts.sum(0))

    def iou(self) -> np.ndarray:
        """Returns the intersection over union of each class, [num_classes].

        A class that is neither a true nor a predicted one is NaN.
        """
        right = np.diag(self.counts)
        return _ratio(right, self.counts.sum(0) + self.counts.sum(1) - right)

    def accuracy(self) -> float:
        """Returns the share of all examples or pixels that was predicted right; NaN if nothing was counted."""
        return float(np.trace(self.counts) / total) if (total := self.counts.sum()) else float("nan")


class PerImage(NamedTuple):
    """Results of single images, such as the boxes in them, where a sum over images does not do.

    Attributes:
        values: Name -> array [B, ...].
        mask: bool [B]; the values of the other images are left out.
    """

    values: dict[str, "jax.Array | np.ndarray"]
    mask: "jax.Array | np.ndarray"

    def of_images(self) -> dict[str, np.ndarray]:
        """Returns the values of the images of the mask, name -> array [N, ...], of merged metrics."""
        return {name: value[self.mask] for name, value in self.values.items()}


Metric = Mean | ConfusionMatrix | PerImage


def over_devices(metrics: dict[str, Metric], axis: str) -> dict[str, Metric]:
    """Returns the metrics of all rows of a batch on every device; runs inside `jax.shard_map`.

    Args:
        metrics: Metrics of the device's own rows.
        axis: Name of the mesh axis.
    """
    import jax

    return {
        name: jax.tree.map(lambda x: jax.lax.all_gather(x, axis, tiled=True), metric)
        if isinstance(metric, PerImage)
        else jax.lax.psum(metric, axis)
        for name, metric in metrics.items()
    }


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Returns part / whole, NaN where whole is 0."""
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def mean_of_present(values: np.ndarray) -> float:
    """Returns the mean of the values that are not NaN, as mmseg's `np.nanmean` over the classes; NaN if all are."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else float("nan")


def merge(metrics: dict[str, Metric] | None, batch: dict[str, Metric]) -> dict[str, Metric]:
    """Adds the metrics of one batch to the running ones, or joins them, and returns the result as NumPy arrays.

    The sums are int64 and float64 on the host, because float32 counts would stop growing at 1.6e7.

    Args:
        metrics: The running metrics; None for the first batch.
        batch: Metrics of one batch by name.
    """
    import jax

    found = {
        name: value if isinstance(value, PerImage) else jax.tree.map(_widen, value)
        for name, value in jax.device_get(batch).items()
    }
    if metrics is None:
        return found
    return {
        name: jax.tree.map(_joined if isinstance(value, PerImage) else np.add, metrics[name], value)
        for name, value in found.items()
    }


def _joined(*rows: np.ndarray) -> np.ndarray:
    return np.concatenate(rows)


def _widen(value: np.ndarray) -> np.ndarray:
    """Converts a float array to float64 and any other to int64."""
    return np.asarray(value, np.float64 if np.issubdtype(value.dtype, np.floating) else np.int64)
