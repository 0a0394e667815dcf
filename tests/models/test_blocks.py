"""Convolution and linear layers and their initial values against PyTorch, and models in bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch.nn import functional as F

from seaformer_jax import create_model
from seaformer_jax.models import blocks, depthwise
from tests.models.arrays import nchw, nhwc, normal

RNG = np.random.default_rng(0)  # For layers whose values do not matter in the test.


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (6, 11)])
@pytest.mark.parametrize(("k", "stride"), [(3, 2), (3, 1), (5, 2)])
def test_conv_pads_as_pytorch(k, stride, size):
    conv = blocks.Conv(3, 4, k, stride, RNG)
    reference = torch.nn.Conv2d(3, 4, k, stride, padding=k // 2, bias=False)
    reference.weight.data = torch.from_numpy(np.asarray(conv.kernel[...]).transpose(3, 2, 0, 1).copy())
    x = normal(1, 2, *size, 3)
    np.testing.assert_allclose(conv(jnp.asarray(x)), nhwc(reference(nchw(x))), rtol=0, atol=1e-5)


def test_depthwise_layer_adds_its_bias():
    layer = blocks.Depthwise(4, 3, RNG, stride=2, use_bias=True)
    x = jnp.asarray(normal(1, 1, 5, 5, 4))
    expected = depthwise.shifted_depthwise_conv(x, layer.kernel[...], 2) + layer.bias[...]
    np.testing.assert_allclose(layer(x), expected, rtol=0, atol=1e-6)


def test_pointwise_equals_linear():
    layer = blocks.Pointwise(5, 3, RNG, use_bias=True)
    x, kernel, bias = normal(1, 2, 4, 6, 5), np.array(layer.kernel[...]), np.array(layer.bias[...])
    expected = F.linear(*(torch.from_numpy(array) for array in (x, kernel.T, bias)))
    np.testing.assert_allclose(layer(jnp.asarray(x)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "reference"),
    [
        (blocks.Pointwise(64, 96, RNG, use_bias=True), torch.nn.Linear(64, 96)),
        (blocks.Conv(12, 64, 3, 2, RNG), torch.nn.Conv2d(12, 64, 3, bias=False)),
        (blocks.Depthwise(512, 5, RNG, use_bias=True), torch.nn.Conv2d(512, 512, 5, groups=512)),
    ],
    ids=["pointwise", "conv", "depthwise"],
)
def test_initial_values_are_distributed_as_pytorchs(layer, reference):
    pairs = [(layer.kernel, reference.weight)]
    pairs += [(layer.bias, reference.bias)] if reference.bias is not None else []
    for ours, theirs in pairs:
        ours, theirs = np.asarray(ours[...]), theirs.detach().numpy()
        assert ours.size == theirs.size
        assert ours.dtype == np.float32
        # Both are uniform: the extremes test the bounds, the standard deviation tests the shape in between.
        for of in (np.min, np.max, np.std):
            assert of(ours) == pytest.approx(of(theirs), rel=0.15)
        assert abs(ours.mean()) < 5 * theirs.std() / ours.size**0.5


def test_bfloat16_model_keeps_parameters_statistics_and_logits_in_float32():
    graphdef, state = nnx.split(create_model("seaformer_tiny", num_classes=10, dtype="bfloat16"))

    def forward(state, images):
        model = nnx.merge(graphdef, state)
        features, logits = model.backbone(images, train=True), model(images, train=True)
        return features, logits, nnx.state(model)

    def dtypes(tree) -> set[str]:
        return {leaf.dtype.name for leaf in jax.tree.leaves(tree)}

    features, logits, after = jax.eval_shape(forward, state, jnp.zeros((8, 64, 64, 3)))
    assert dtypes(features) == {"bfloat16"}
    assert dtypes(logits) == dtypes(state) == dtypes(after) == {"float32"}


def test_bfloat16_logits_are_close_to_float32():
    full, mixed = (create_model("seaformer_tiny", num_classes=10, dtype=d) for d in ("float32", "bfloat16"))
    images = jnp.asarray(normal(0, 8, 64, 64, 3))
    forward = nnx.jit(lambda model, images: model(images))
    expected, logits = forward(full, images), forward(mixed, images)
    assert jnp.linalg.norm(logits - expected) < 0.03 * jnp.linalg.norm(expected)
