"""Stochastic depth in the SeaFormer layers."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seaformer_jax.models.seaformer import SeaFormerLayer
from tests.models.arrays import normal


class Constant(nnx.Module):
    """A branch that returns the same array for every input."""

    def __init__(self, value):
        self.value = nnx.Param(jnp.asarray(value))

    def __call__(self, x, train, *extent):
        return self.value[...].astype(x.dtype)


def branch(value, rate: float, rngs: nnx.Rngs | None, dtype=jnp.float32):
    """Returns the output of a layer whose attention returns `value` and whose FFN returns 0, for an input of 0."""
    layer = SeaFormerLayer(Constant(value), Constant(np.zeros_like(value)), rate)
    return layer(jnp.zeros(value.shape, dtype), train=True, rngs=rngs)


def test_drop_path_drops_whole_images_and_scales_the_rest():
    x = normal(0, 4000, 2, 1, 3)
    y = np.asarray(branch(x, 0.25, nnx.Rngs(dropout=0)))
    kept = y.any((1, 2, 3))
    np.testing.assert_allclose(y[kept], x[kept] / 0.75, rtol=1e-6)
    assert kept.mean() == pytest.approx(0.75, abs=0.035)  # 5 standard errors


def test_drop_path_draws_anew_from_its_stream():
    rngs, x = nnx.Rngs(dropout=0), np.ones((64, 1, 1, 1), np.float32)
    first, second = (branch(x, 0.5, rngs) for _ in range(2))
    assert (first != second).any()
    assert (branch(x, 0.5, nnx.Rngs(dropout=0)) == first).all()


def test_drop_path_without_a_stream_or_rate_keeps_every_branch():
    x = normal(0, 8, 1, 1, 1)
    np.testing.assert_array_equal(branch(x, 0.9, None), x)
    np.testing.assert_array_equal(branch(x, 0.0, nnx.Rngs(dropout=0)), x)


def test_drop_path_keeps_bfloat16():
    x = np.ones((2, 1, 1, 1), np.float32)
    assert branch(x, 0.5, nnx.Rngs(dropout=0), jnp.bfloat16).dtype == jnp.bfloat16
