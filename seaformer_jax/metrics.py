"""Metrics as mergeable counts: no result depends on batch size, devices or hosts."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Mean(NamedTuple):
    """A mean over examples: `total / count`."""

    total: jax.Array | np.ndarray
    count: jax.Array | np.ndarray

    @classmethod
    def of(cls, values: jax.Array, mask: jax.Array) -> "Mean":
        """Sums values [B] where mask [B] is true (a masked NaN does no harm)."""
        return cls(jnp.where(mask, values, 0).sum(), mask.sum())

    def compute(self) -> float:
        return float(self.total / self.count) if self.count else float("nan")


class ConfusionMatrix(NamedTuple):
    """Counts of (true class, predicted class), both along axes of length num_classes."""

    counts: jax.Array | np.ndarray  # [true, predicted]

    @classmethod
    def of(
        cls, labels: jax.Array, predictions: jax.Array, mask: jax.Array, num_classes: int
    ) -> "ConfusionMatrix":
        """Counts integer labels and predictions [...] where mask [...] is true."""
        zeros = jnp.zeros((num_classes, num_classes), jnp.int32)
        return cls(zeros.at[labels, predictions].add(mask.astype(jnp.int32), mode="drop"))

    def recall(self) -> np.ndarray:
        """Share of each true class that was predicted as such, [num_classes]; NaN for an absent class."""
        return _ratio(np.diag(self.counts), self.counts.sum(1))

    def precision(self) -> np.ndarray:
        """Share of each predicted class that is right, [num_classes]; NaN for a class never predicted."""
        return _ratio(np.diag(self.counts), self.counts.sum(0))

    def iou(self) -> np.ndarray:
        """Intersection over union of each class, [num_classes]; NaN for one neither true nor predicted."""
        right = np.diag(self.counts)
        return _ratio(right, self.counts.sum(0) + self.counts.sum(1) - right)

    def accuracy(self) -> float:
        """Share of all that were predicted right; NaN where nothing was counted."""
        return float(np.trace(self.counts) / total) if (total := self.counts.sum()) else float("nan")


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def mean_of_present(values: np.ndarray) -> float:
    """Mean of those that are not NaN, as mmseg's `np.nanmean` over the classes; NaN where all are."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else float("nan")


def merge(metrics: dict | None, batch: dict) -> dict:
    """Adds the metrics of one batch to the running ones, on the host, in int64 and float64.

    float32 counts would stop growing at 1.6e7.
    """
    batch = jax.tree.map(_widen, jax.device_get(batch))
    return batch if metrics is None else jax.tree.map(np.add, metrics, batch)


def _widen(value: np.ndarray) -> np.ndarray:
    return np.asarray(value, np.float64 if np.issubdtype(value.dtype, np.floating) else np.int64)
