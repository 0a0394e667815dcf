"""Mergeable metrics against plain loops."""

import jax.numpy as jnp
import numpy as np
import pytest

from seaformer_jax.metrics import ConfusionMatrix, Mean, mean_of_present, merge


def test_mean_leaves_masked_values_out():
    mean = Mean.of(jnp.array([1.0, np.nan, 5.0, np.inf]), jnp.array([True, False, True, False]))
    assert (float(mean.total), int(mean.count)) == (6.0, 2)
    assert merge(None, {"m": mean})["m"].compute() == 3.0


def test_mean_of_nothing_is_nan():
    assert np.isnan(Mean.of(jnp.ones(2), jnp.zeros(2, bool)).compute())


@pytest.mark.parametrize("shape", [(200,), (4, 5, 10)])
def test_confusion_matrix_equals_a_loop(shape):
    rng = np.random.default_rng(0)
    labels, predictions, mask = (
        rng.integers(4, size=shape),
        rng.integers(4, size=shape),
        rng.random(shape) < 0.7,
    )
    found = ConfusionMatrix.of(jnp.array(labels), jnp.array(predictions), jnp.array(mask), 5)
    expected = np.zeros((5, 5), int)
    for label, prediction, valid in zip(labels.flat, predictions.flat, mask.flat, strict=True):
        expected[label, prediction] += valid
    assert np.array_equal(found.counts, expected)

    matrix = merge(None, {"c": found})["c"]
    for c in range(4):
        assert matrix.recall()[c] == expected[c, c] / expected[c].sum()
        assert matrix.precision()[c] == expected[c, c] / expected[:, c].sum()
    assert np.isnan(matrix.recall()[4]) and np.isnan(matrix.precision()[4])


@pytest.mark.parametrize("seed", range(3))
def test_segmentation_scores_equal_sets_of_pixels(seed):
    """Compares random label maps with sets of positions. Two classes are absent; one of them is predicted."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 2, 4, 255], (3, 20, 30))
    guesses = np.where(
        rng.random(labels.shape) < 0.6, labels % 255, rng.choice([0, 1, 2, 3, 4], labels.shape)
    )
    found = ConfusionMatrix.of(jnp.array(labels), jnp.array(guesses), jnp.array(labels != 255), 6)
    matrix = merge(None, {"c": found})["c"]

    counted = {tuple(position) for position in np.argwhere(labels != 255)}
    true = [{p for p in counted if labels[p] == c} for c in range(6)]
    predicted = [{p for p in counted if guesses[p] == c} for c in range(6)]
    for c in range(5):
        assert matrix.iou()[c] == len(true[c] & predicted[c]) / len(true[c] | predicted[c])
    assert np.isnan(matrix.iou()[5])  # Neither present nor predicted: left out of the mean.
    assert matrix.iou()[3] == 0  # Not present, but predicted.
    assert np.isnan(matrix.recall()[[3, 5]]).all()
    right = sum(len(t & p) for t, p in zip(true, predicted, strict=True))
    assert matrix.accuracy() == right / len(counted)
    assert mean_of_present(matrix.iou()) == pytest.approx(sum(matrix.iou()[:5]) / 5)


def test_values_that_are_no_class_are_not_counted():
    matrix = ConfusionMatrix.of(jnp.array([0, 1, 7, 1]), jnp.array([0, 1, 1, 7]), jnp.ones(4, bool), 2)
    assert np.array_equal(matrix.counts, [[1, 0], [0, 1]])


def test_scores_of_nothing_are_nan():
    nothing = ConfusionMatrix(np.zeros((2, 2), np.int64))
    assert np.isnan(mean_of_present(nothing.iou())) and np.isnan(nothing.accuracy())


def test_merging_counts_beyond_what_the_device_can():
    """float32 cannot count beyond 2^24, and int32 not beyond 2^31."""
    batch = {
        "mean": Mean(jnp.float32(2**24), jnp.int32(2**24)),
        "one": Mean(jnp.float32(1), jnp.int32(1)),
        "matrix": ConfusionMatrix(jnp.full((2, 2), 2**30, jnp.int32)),
    }
    total = None
    for _ in range(300):
        total = merge(total, batch)
    total = merge(total, {**batch, "mean": Mean(jnp.float32(1), jnp.int32(1))})
    assert total["mean"].total == 300 * 2**24 + 1 and total["mean"].count == 300 * 2**24 + 1
    assert total["one"].count == 301
    assert total["matrix"].counts[0, 0] == 301 * 2**30
    assert total["mean"].total.dtype == np.float64
    assert total["mean"].count.dtype == total["matrix"].counts.dtype == np.int64


def test_merging_does_not_depend_on_how_the_examples_are_split():
    rng = np.random.default_rng(1)
    values, mask = rng.integers(100, size=60).astype(np.float32), rng.random(60) < 0.5
    for size in (1, 7, 60):
        total = None
        for first in range(0, 60, size):
            rows = slice(first, first + size)
            total = merge(total, {"m": Mean.of(jnp.array(values[rows]), jnp.array(mask[rows]))})
        assert total["m"].compute() == values[mask].astype(np.float64).mean()
