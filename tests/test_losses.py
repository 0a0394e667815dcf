"""Losses against PyTorch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from seaformer_jax import losses

LOGITS = 5 * np.random.default_rng(0).standard_normal((16, 10)).astype(np.float32)
LABELS = np.random.default_rng(1).integers(10, size=16)


def test_cross_entropy():
    expected = F.cross_entropy(torch.tensor(LOGITS), torch.tensor(LABELS), reduction="none")
    assert np.allclose(losses.cross_entropy(jnp.array(LOGITS), jnp.array(LABELS)), expected, atol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_smoothed_targets(smoothing):
    targets = (1 - smoothing) * np.eye(10)[LABELS] + smoothing / 10
    expected = F.cross_entropy(
        torch.tensor(LOGITS), torch.tensor(LABELS), reduction="none", label_smoothing=smoothing
    )
    assert np.allclose(losses.soft_cross_entropy(jnp.array(LOGITS), jnp.array(targets)), expected, atol=1e-5)


def test_soft_targets_and_their_gradient():
    targets = np.random.default_rng(2).dirichlet(np.ones(10), 16).astype(np.float32)
    logits = torch.tensor(LOGITS, requires_grad=True)
    expected = F.cross_entropy(logits, torch.tensor(targets), reduction="none")
    expected.sum().backward()
    found, gradient = jax.value_and_grad(lambda x: losses.soft_cross_entropy(x, jnp.array(targets)).sum())(
        jnp.array(LOGITS)
    )
    assert float(found) == pytest.approx(expected.sum().item(), rel=1e-6)
    assert np.allclose(gradient, logits.grad, atol=1e-5)


def test_losses_are_computed_in_float32():
    logits = jnp.array(LOGITS, jnp.bfloat16)
    for found in (
        losses.cross_entropy(logits, jnp.array(LABELS)),
        losses.soft_cross_entropy(logits, jax.nn.one_hot(LABELS, 10)),
    ):
        assert found.dtype == jnp.float32
        assert np.allclose(
            found, losses.cross_entropy(logits.astype(jnp.float32), jnp.array(LABELS)), atol=1e-6
        )


def test_large_logits_do_not_overflow():
    logits = jnp.array([[1e4, -1e4, 0.0]])
    assert losses.cross_entropy(logits, jnp.array([1]))[0] == pytest.approx(2e4)
    assert np.isfinite(losses.soft_cross_entropy(logits, jnp.array([[0.2, 0.3, 0.5]]))).all()


def pixels(factor: int = 8, shape: tuple[int, ...] = (2, 3, 5, 7)) -> tuple[np.ndarray, np.ndarray]:
    """Returns logits of `shape` (B, h, w, C) and labels `factor` times as large, a fifth of them 255."""
    rng = np.random.default_rng(4)
    batch, h, w, classes = shape
    labels = rng.integers(classes, size=(batch, factor * h, factor * w))
    labels = np.where(rng.random(labels.shape) < 0.2, 255, labels)
    return 3 * rng.standard_normal(shape).astype(np.float32), labels.astype(np.uint8)


def torch_pixels(logits: torch.Tensor, labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the sum of the losses and the number of right pixels, for logits that are upsampled as a whole."""
    upsampled = F.interpolate(
        logits.permute(0, 3, 1, 2), labels.shape[1:], mode="bilinear", align_corners=False
    )
    target = torch.from_numpy(labels.astype(np.int64))
    loss = F.cross_entropy(upsampled, target, ignore_index=255, reduction="sum")
    return loss, (upsampled.argmax(1) == target).sum()


@pytest.mark.parametrize(
    "factor, shape", [(2, (2, 3, 5, 7)), (4, (2, 3, 5, 7)), (8, (2, 3, 5, 7)), (8, (1, 1, 2, 3))]
)
def test_pixel_cross_entropy_and_its_gradient(factor, shape):
    logits, labels = pixels(factor, shape)
    expected = torch.tensor(logits, requires_grad=True)
    loss, right = torch_pixels(expected, labels)
    (2 * loss).backward()

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def double(logits):
        sums = losses.pixel_cross_entropy(logits, labels)
        return 2 * sums.loss, sums

    (found, sums), gradient = double(logits)
    assert float(found) == pytest.approx(2 * loss.item(), rel=1e-6)
    assert (int(sums.right), int(sums.pixels)) == (right.item(), (labels < 255).sum())
    np.testing.assert_allclose(gradient, expected.grad, rtol=1e-5, atol=1e-5)
    without_gradient = losses.pixel_cross_entropy(jnp.asarray(logits), jnp.asarray(labels))
    assert float(without_gradient.loss) == pytest.approx(loss.item(), rel=1e-6)
    assert int(without_gradient.right) == right.item()


def test_the_form_for_tpus_is_the_same_function():
    logits, labels = pixels(8, (2, 3, 5, 7))
    above, below = logits[:, 0], logits[:, 1]
    factor, cells = labels.shape[1] // logits.shape[1], losses._bands(jnp.asarray(labels), logits.shape)[1][1]

    def sums(between, above, below):
        return losses._sum_over_band(functools.partial(between, factor=factor), above, below, cells)

    (at_rows, found), (at_corners, other) = (
        jax.grad(functools.partial(sums, form), (0, 1), has_aux=True)(above, below)
        for form in (losses._between_rows, losses._between_corners)
    )
    assert float(other.loss) == pytest.approx(float(found.loss), rel=1e-6)
    for gradient, expected in zip(at_corners, at_rows, strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5)


def test_the_gradient_of_bfloat16_logits():
    """They are upsampled in float32; only their gradient is rounded, to 8 bits."""
    logits, labels = pixels()
    low = jnp.asarray(logits, jnp.bfloat16)
    gradient = jax.grad(lambda x: losses.pixel_cross_entropy(x, labels).loss / labels.size)
    found, expected = gradient(low), gradient(low.astype(jnp.float32))
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), expected, rtol=2**-7, atol=1e-9)


def test_pixels_without_a_label_have_no_gradient():
    logits, labels = pixels()
    gradient = jax.grad(lambda x: losses.pixel_cross_entropy(x, np.full_like(labels, 255)).loss)(logits)
    assert not np.asarray(gradient).any()
    sums = losses.pixel_cross_entropy(jnp.asarray(logits), np.full_like(labels, 255))
    assert [float(value) for value in sums] == [0, 0, 0]
    negative = np.where(labels < 255, labels.astype(np.int32), -1)
    found, expected = (losses.pixel_cross_entropy(jnp.asarray(logits), each) for each in (negative, labels))
    assert [float(value) for value in found] == [float(value) for value in expected]


def test_full_size_logits_never_exist():
    logits, labels = pixels(shape=(2, 32, 32, 50))
    gradient = jax.jit(jax.grad(lambda x: losses.pixel_cross_entropy(x, labels).loss))
    memory = gradient.lower(logits).compile().memory_analysis()
    one_image = labels[0].size * 50 * 4
    assert memory.temp_size_in_bytes < one_image / 2


def test_labels_between_the_logits_are_refused():
    logits, labels = pixels()
    with pytest.raises(ValueError, match="labels are 20x40; expected an even multiple of the logits' 3x5"):
        losses.pixel_cross_entropy(logits, labels[:, :20])
    logits, labels = pixels(factor=3)
    with pytest.raises(ValueError, match="labels are 9x15; expected an even multiple"):
        losses.pixel_cross_entropy(logits, labels)
