"""Convolution and linear layers and their initial values against PyTorch, and models in bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch.nn import functional as F

from seaformer_jax import create_model
from seaformer_jax.models import blocks, forms
from tests.models.arrays import normal

RNG = np.random.default_rng(0)  # For layers whose values do not matter in the test.


def test_depthwise_layer_adds_its_bias():
    layer = blocks.Depthwise(4, 3, RNG, stride=2, use_bias=True)
    x = jnp.asarray(normal(1, 1, 5, 5, 4))
    expected = forms.depthwise_conv(x, layer.kernel[...], 2) + layer.bias[...]
    np.testing.assert_allclose(layer(x), expected, rtol=0, atol=1e-6)


def test_pointwise_equals_linear():
    layer = blocks.Pointwise(5, 3, RNG, use_bias=True)
    x, kernel, bias = normal(1, 2, 4, 6, 5), np.array(layer.kernel[...]), np.array(layer.bias[...])
    expected = F.linear(*(torch.from_numpy(array) for array in (x, kernel.T, bias)))
    np.testing.assert_allclose(layer(jnp.asarray(x)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "layer", [blocks.Pointwise(4, 3, RNG, use_bias=True), blocks.Depthwise(4, 3, RNG, use_bias=True)]
)
def test_bias_gradients_are_summed_in_float32(layer):
    x = jnp.asarray(normal(1, 4, 64, 64, 4), jnp.bfloat16)

    def loss(layer):
        return layer(x).astype(jnp.float32).sum()  # Bfloat16 cannot count to 16384 = 4 * 64 * 64 one by one.

    np.testing.assert_array_equal(nnx.grad(loss)(layer)["bias"][...], 4 * 64 * 64)


torch.manual_seed(0)  # The extremes of 96 values vary too much from seed to seed.


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
