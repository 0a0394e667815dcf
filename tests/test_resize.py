"""Resizing against PyTorch's `interpolate`, growing and shrinking."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from seaformer_jax.resize import apply_taps, linear_matrix, linear_taps, resize_linear, then


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("count", [1, 4, 7, 16, 23, 64])
def test_table(count):
    x = normal(16, 5)
    expected = F.interpolate(
        torch.from_numpy(x.T[None].copy()), size=count, mode="linear", align_corners=False
    )
    np.testing.assert_allclose(resize_linear(jnp.asarray(x), (count, 5)), expected[0].T, rtol=0, atol=5e-6)


@pytest.mark.parametrize("size", [(18, 26), (17, 5), (3, 29), (4, 6), (9, 13), (1, 1)])
def test_images_and_gradients(size):
    x, weight = normal(2, 9, 13, 3), normal(2, *size, 3)
    x_torch = torch.from_numpy(x).requires_grad_()
    channels_first = F.interpolate(
        x_torch.permute(0, 3, 1, 2), size=size, mode="bilinear", align_corners=False
    )
    expected = channels_first.permute(0, 2, 3, 1)
    (expected * torch.from_numpy(weight)).sum().backward()

    y, backward = jax.vjp(lambda x: resize_linear(x, (2, *size, 3)), jnp.asarray(x))
    np.testing.assert_allclose(y, expected.detach(), rtol=0, atol=5e-6)
    np.testing.assert_allclose(backward(jnp.asarray(weight))[0], x_torch.grad, rtol=0, atol=5e-6)


def test_same_shape_is_kept_exactly():
    x = normal(16, 5)
    np.testing.assert_array_equal(resize_linear(jnp.asarray(x), (16, 5)), x)


def test_dtype_is_kept():
    assert resize_linear(jnp.ones((4, 2), jnp.bfloat16), (7, 2)).dtype == jnp.bfloat16


@pytest.mark.parametrize("new", [1, 5, 9, 23, 64])
def test_taps_are_the_same_map(new):
    x = normal(3, 9, 4)
    expected = F.interpolate(
        torch.from_numpy(x.swapaxes(1, 2).copy()), new, mode="linear", align_corners=False
    )
    found = apply_taps(linear_taps(9, new, new), jnp.asarray(x), 1)
    np.testing.assert_allclose(found, expected.swapaxes(1, 2), rtol=0, atol=2e-6)


@pytest.mark.parametrize(("middle", "new"), [(72, 61), (72, 72), (66, 90), (4, 30)])
def test_two_maps_as_one_with_a_size_known_at_run_time(middle, new):
    """Only the rows up to the new size are compared; those beyond it repeat the last entry and must be finite."""
    x = normal(9, 4)
    composed = jax.jit(lambda size: then(linear_taps(9, middle, middle), linear_taps(middle, size, 96)))(new)
    found = apply_taps(composed, jnp.asarray(x), 0)
    expected = torch.from_numpy(x.T[None].copy())
    for size in (middle, new):
        expected = F.interpolate(expected, size, mode="linear", align_corners=False)
    np.testing.assert_allclose(found[:new], expected[0].T, rtol=0, atol=2e-6)
    assert np.isfinite(found).all()


def test_matrices_of_sizes_that_differ_within_a_batch():
    """Each image has its own number of entries and of outputs; what is beyond the entries has no effect."""
    x, sizes, new = normal(4, 9, 3), np.array([9, 5, 1, 7]), np.array([20, 3, 6, 7])
    matrices = jax.jit(lambda size, new: linear_matrix(size, new, 24, 9))(sizes, new)
    found = jnp.einsum("bni,bic->bnc", matrices, x, precision="highest")
    for image, entries, outputs, y in zip(x, sizes, new, found, strict=True):
        expected = F.interpolate(torch.from_numpy(image[:entries].T[None].copy()), outputs, mode="linear")
        np.testing.assert_allclose(y[:outputs], expected[0].T, rtol=0, atol=2e-6)
