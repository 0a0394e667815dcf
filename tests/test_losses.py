"""Losses against PyTorch."""

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
