"""Multiply-accumulates against the official counts, and against a small network counted by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seaformer_jax import create_model
from seaformer_jax.models.blocks import Conv, ConvBN, Depthwise, Pointwise
from seaformer_jax.models.macs import Macs, count_macs
from seaformer_jax.resize import resize_linear

# fvcore's counts of the official classifiers for one image of 224 x 224.
OFFICIAL = {
    "seaformer_tiny": Macs(conv=93_116_480, matmul=56_064, linear=160_000),
    "seaformer_small": Macs(conv=177_133_568, matmul=126_144, linear=192_000),
    "seaformer_base": Macs(conv=314_680_064, matmul=224_256, linear=256_000),
    "seaformer_large": Macs(conv=1_160_251_520, matmul=648_000, linear=320_000),
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_counts_of_the_official_models(name):
    assert count_macs(create_model(name), 224, 224) == OFFICIAL[name]


class Toy(nnx.Module):
    """A network with one operation of every kind."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.stem = ConvBN(Conv(3, 4, 3, 2, rng), 4, groups=1)
        self.depthwise = Depthwise(4, 5, rng, stride=2, use_bias=True)
        self.pointwise = Pointwise(4, 6, rng)
        self.head = Pointwise(6, 7, rng, use_bias=True)

    def __call__(self, images, train):
        x = jax.nn.relu(self.stem(images, train))  # [1, 4, 5, 4]
        x = self.pointwise(self.depthwise(x))  # [1, 2, 3, 6]
        x = resize_linear(x, (1, 4, 3, 6))
        tokens = x.reshape(1, 12, 6)
        weights = jax.nn.softmax(jnp.einsum("bnc,bmc->bnm", tokens, tokens))
        return self.head(jnp.einsum("bnm,bmc->bnc", weights, tokens).mean(1))


def test_toy_equals_the_count_by_hand():
    stem = (4 * 5 * 4) * (3 * 3 * 3)  # Outputs times products per output.
    depthwise = (2 * 3 * 4) * (5 * 5)
    pointwise = (2 * 3 * 6) * 4
    attention = 12 * 12 * 6 + 12 * 6 * 12
    expected = Macs(conv=stem + depthwise + pointwise, matmul=attention, linear=7 * 6)
    assert count_macs(Toy(), 8, 9) == expected
    assert expected.total == 2160 + 600 + 144 + 1728 + 42


def test_counting_leaves_the_model_as_it_was():
    model = create_model("seaformer_tiny")
    before = jax.tree.leaves(nnx.state(model))
    count_macs(model, 64, 64)
    assert all(a is b for a, b in zip(before, jax.tree.leaves(nnx.state(model)), strict=True))
