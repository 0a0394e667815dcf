"""Operators of Core ML programs, as coremltools documents them, against NumPy."""

import math

import numpy as np
import pytest
import torch

from convert.runtimes.mil_operators import OPERATORS
from seaformer_jax.errors import UserError

X = np.arange(48, dtype=np.float32).reshape(1, 2, 4, 6)


def run(operator: str, **values):
    """Returns what an operator makes of `X`, as arrays."""
    result = OPERATORS[operator]({"x": torch.from_numpy(X), **values})
    return [part.numpy() for part in result] if isinstance(result, list | tuple) else result.numpy()


@pytest.mark.parametrize(("mode", "options"), [("constant", {"constant_values": 7}), ("reflect", {})])
@pytest.mark.parametrize("pad", [[0, 0, 0, 0, 1, 2, 3, 0], [1, 2, 3, 0]])  # Of all axes, and of the last two.
def test_pads_before_and_after_every_axis(pad, mode, options):
    widths = np.reshape([0] * (8 - len(pad)) + pad, (4, 2))
    found = run("pad", pad=pad, mode=mode, constant_val=7.0)
    np.testing.assert_array_equal(found, np.pad(X, widths, mode, **options))


def test_the_first_axes_can_be_padded_with_a_constant():
    found = run("pad", pad=[1, 0, 0, 2, 0, 0, 0, 0], mode="constant", constant_val=0.0)
    np.testing.assert_array_equal(found, np.pad(X, [(1, 0), (0, 2), (0, 0), (0, 0)]))


@pytest.mark.parametrize(
    ("values", "positions"),
    [({"num_splits": 3}, [2, 4]), ({"num_splits": None, "split_sizes": [1, 3, 2]}, [1, 4])],
)
def test_splits_along_an_axis(values, positions):
    for found, expected in zip(run("split", axis=3, **values), np.split(X, positions, 3), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("indices", [[[3, 0], [1, 1], [2, 0]], [3], 2])
@pytest.mark.parametrize("axis", [2, -2])
def test_gathers_along_an_axis(axis, indices):
    np.testing.assert_array_equal(run("gather", axis=axis, indices=indices), np.take(X, indices, axis))


def test_exponentials_and_quotients():
    np.testing.assert_allclose(run("exp"), np.exp(X), rtol=1e-6)
    np.testing.assert_array_equal(run("real_div", y=torch.tensor(4.0)), X / 4)


@pytest.mark.parametrize("axes", [[0], [2], [-1], [0, 2, -1]])
def test_new_axes_have_the_positions_that_are_named(axes):
    np.testing.assert_array_equal(run("expand_dims", axes=axes), np.expand_dims(X, axes))


def test_stacks_along_a_new_axis():
    parts = [torch.from_numpy(X), torch.from_numpy(X + 1)]
    np.testing.assert_array_equal(run("stack", values=parts, axis=2), np.stack([X, X + 1], 2))


def test_batch_norm_has_the_channels_in_the_second_axis():
    numbers = {
        name: torch.tensor([k + 1.0, k + 3.0]) for k, name in enumerate(("mean", "variance", "gamma", "beta"))
    }
    mean, variance, gamma, beta = (value.numpy()[:, None, None] for value in numbers.values())
    expected = (X - mean) / np.sqrt(variance + 0.5) * gamma + beta
    np.testing.assert_allclose(run("batch_norm", epsilon=0.5, **numbers), expected, rtol=1e-5)


@pytest.mark.parametrize("axes", [[3], [-2, -1]])
def test_layer_norm_is_over_the_last_axes(axes):
    gamma = np.arange(1, 7, dtype=np.float32) * np.ones(X.shape[4 - len(axes) :], np.float32)
    mean, variance = X.mean(tuple(axes), keepdims=True), X.var(tuple(axes), keepdims=True)
    expected = (X - mean) / np.sqrt(variance + 0.5) * gamma + 2
    scale = {"gamma": torch.from_numpy(gamma), "beta": torch.full(gamma.shape, 2.0)}
    np.testing.assert_allclose(run("layer_norm", axes=axes, epsilon=0.5, **scale), expected, rtol=1e-5)


def test_the_exact_gelu():
    expected = [x * (1 + math.erf(x / math.sqrt(2))) / 2 for x in (X / 40).flatten().tolist()]
    found = OPERATORS["gelu"]({"x": torch.from_numpy(X / 40), "mode": "EXACT"})
    np.testing.assert_allclose(found.flatten(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("operator", "values"),
    [
        ("pad", {"pad": [1, 1], "mode": "replicate"}),
        ("gather", {"batch_dims": 1}),
        ("gelu", {"mode": "TANH_APPROXIMATION"}),
        ("layer_norm", {"axes": [1]}),
    ],
)
def test_options_that_are_not_known_are_errors(operator, values):
    with pytest.raises(UserError, match="the Core ML program"):
        run(operator, **values)
