"""Batch normalisation against PyTorch's, with one PyTorch module per group of the batch."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from seaformer_jax.models import batch_norm
from tests.models.arrays import nchw, nhwc, normal


def batchnorm_pair(features: int, groups: int = 1) -> tuple[batch_norm.BatchNorm, list[torch.nn.BatchNorm2d]]:
    """Returns ours and one float64 PyTorch module per group, all with the same scale and bias."""
    scale, bias = normal(1, features), normal(2, features)
    ours = batch_norm.BatchNorm(features, groups=groups)
    ours.scale[...], ours.bias[...] = jnp.asarray(scale), jnp.asarray(bias)
    references = [torch.nn.BatchNorm2d(features) for _ in range(groups)]
    for reference in references:
        reference.weight.data, reference.bias.data = torch.from_numpy(scale), torch.from_numpy(bias)
        reference.double()
    return ours, references


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("mean", [0, 300])
def test_batchnorm_equals_one_pytorch_module_per_group(groups, mean):
    ours, references = batchnorm_pair(5, groups)
    # As after some steps: the running mean is near the mean.
    ours.mean[...] = jnp.full(5, mean - 0.5)
    for reference in references:
        reference.running_mean.fill_(mean - 0.5)
    for step in range(2):
        x, weight = normal(10 + step, 4, 3, 2, 5) + np.float32(mean), normal(20 + step, 4, 3, 2, 5)
        x_torch = nchw(x).double().requires_grad_()
        chunks = zip(references, x_torch.chunk(groups), strict=True)
        expected = torch.cat([reference(chunk) for reference, chunk in chunks])
        for reference in references:
            reference.zero_grad()
        (expected * nchw(weight)).sum().backward()

        def loss(bn, x, weight=weight):
            y = bn(x, train=True)
            return (y * weight).sum(), y

        (grads, x_grad), y = nnx.grad(loss, argnums=(0, 1), has_aux=True)(ours, jnp.asarray(x))
        np.testing.assert_allclose(y, nhwc(expected), rtol=0, atol=2e-4)
        np.testing.assert_allclose(x_grad, nhwc(x_torch.grad), rtol=0, atol=5e-4)
        for name, theirs in {"scale": "weight", "bias": "bias"}.items():
            total = sum(getattr(reference, theirs).grad for reference in references)
            np.testing.assert_allclose(grads[name][...], total, rtol=0, atol=5e-4)

    for name, theirs in {"mean": "running_mean", "var": "running_var"}.items():
        expected = torch.stack([getattr(reference, theirs) for reference in references]).mean(0)
        np.testing.assert_allclose(getattr(ours, name)[...], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mean", [0, 300])
def test_batchnorm_in_evaluation_equals_pytorch_and_leaves_the_statistics(mean):
    ours, (reference,) = batchnorm_pair(5)
    stats = normal(3, 5) + np.float32(mean), np.square(normal(4, 5))
    ours.mean[...], ours.var[...] = (jnp.asarray(value) for value in stats)
    reference.running_mean, reference.running_var = (torch.from_numpy(value).double() for value in stats)
    x = normal(30, 3, 3, 2, 5) + np.float32(mean)
    expected = nhwc(reference.eval()(nchw(x).double()))
    np.testing.assert_allclose(ours(jnp.asarray(x), train=False), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal([ours.mean[...], ours.var[...]], stats)


@pytest.mark.parametrize(("mean", "at_first"), [(300, 0.03), (30, 2e-4), (3, 1e-5)])
def test_a_mean_far_from_the_running_mean_costs_precision_in_the_first_steps_only(mean, at_first):
    bn, errors = batch_norm.BatchNorm(3), []
    for step in range(41):
        x = normal(step, 8, 16, 16, 3) + np.float32(mean)
        y = np.asarray(bn(jnp.asarray(x), train=True))
        errors.append(np.abs(y.reshape(-1, 3).std(0) - 1).max())
    assert max(errors) < at_first
    assert errors[-1] < 1e-5  # 5e-6 are epsilon's.


def test_rounding_makes_no_variance_negative():
    bn = batch_norm.BatchNorm(3)
    y = bn(jnp.full((2, 3, 3, 3), 5000.3), train=True)  # The difference of the squares would be -8.
    assert jnp.isfinite(y).all()
    assert (bn.var[...] > 0.89).all()


def test_one_value_per_channel_stays_finite():
    bn = batch_norm.BatchNorm(3)
    y = bn(jnp.ones((1, 1, 1, 3)), train=True)
    assert jnp.isfinite(y).all()
    assert jnp.isfinite(bn.var[...]).all()


def test_batch_that_does_not_divide_is_an_error():
    with pytest.raises(ValueError, match="batch of 6 images does not divide into 4"):
        batch_norm.BatchNorm(3, groups=4)(jnp.ones((6, 2, 2, 3)), train=True)


def test_batchnorm_of_bfloat16_takes_its_statistics_in_float32():
    bn, x = batch_norm.BatchNorm(3), jnp.asarray(normal(0, 64, 16, 16, 3)).astype(jnp.bfloat16)
    assert bn(x, train=True).dtype == jnp.bfloat16
    exact = np.asarray(x, np.float64).reshape(-1, 3)
    np.testing.assert_allclose(bn.mean[...], 0.1 * exact.mean(0), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(bn.var[...], 0.9 + 0.1 * exact.var(0, ddof=1), rtol=1e-5)
