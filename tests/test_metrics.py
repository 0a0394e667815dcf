"""Mergeable metrics against slow plain versions."""

import jax.numpy as jnp
import numpy as np
import torch

from seaformer_jax import losses
from seaformer_jax.metrics import ConfusionMatrix, Mean, merge


def test_mean_ignores_masked_values_even_nan():
    mean = Mean.of(jnp.array([1.0, jnp.nan, 3.0]), jnp.array([True, False, True]))
    assert mean.total == 4 and mean.count == 2
    assert merge(None, {"m": mean})["m"].compute() == 2


def test_an_empty_mean_is_nan():
    assert np.isnan(Mean(np.float64(0), np.int64(0)).compute())


def test_confusion_matrix_counts_pair_by_pair():
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(5, size=(2, 300))
    mask = rng.random(300) < 0.7
    expected = np.zeros((5, 5), int)
    for label, prediction, valid in zip(labels, predictions, mask, strict=True):
        expected[label, prediction] += valid
    matrix = ConfusionMatrix.of(jnp.asarray(labels), jnp.asarray(predictions), jnp.asarray(mask), 5)
    np.testing.assert_array_equal(matrix.counts, expected)


def test_recall_and_precision_by_hand():
    matrix = ConfusionMatrix(np.array([[3, 1, 0], [0, 0, 0], [2, 0, 0]]))
    np.testing.assert_array_equal(matrix.recall(), [3 / 4, np.nan, 0])
    np.testing.assert_array_equal(matrix.precision(), [3 / 5, 0, np.nan])


def test_merged_counts_go_on_where_float32_and_int32_stop():
    total, one = (
        None,
        {"m": Mean(jnp.float32(1), jnp.int32(1)), "c": ConfusionMatrix(jnp.ones((1, 1), jnp.int32))},
    )
    big = {"m": Mean(np.float64(2**24), np.int64(2**31)), "c": ConfusionMatrix(np.full((1, 1), 2**31))}
    total = merge(merge(total, one) | big, one)
    assert total["m"].total == 2**24 + 1
    assert total["m"].count == 2**31 + 1
    assert total["c"].counts[0, 0] == 2**31 + 1


def test_losses_equal_pytorch():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((6, 10)).astype(np.float32) * 5
    labels = rng.integers(10, size=6)
    ours = losses.cross_entropy(jnp.asarray(logits), jnp.asarray(labels))
    theirs = torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(labels), reduction="none")
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)

    smooth = np.full((6, 10), 0.01, np.float32)
    smooth[np.arange(6), labels] += 0.9
    ours = losses.soft_cross_entropy(jnp.asarray(logits), jnp.asarray(smooth))
    theirs = torch.nn.functional.cross_entropy(
        torch.tensor(logits), torch.tensor(labels), label_smoothing=0.1, reduction="none"
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
