"""The convolution path of ACmix (Pan et al. 2022, LeapLabTHU/ACmix), which reuses queries, keys and values."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seaformer_jax.models.attention.layers import split_heads
from seaformer_jax.models.blocks import Pointwise
from seaformer_jax.models.forms import grouped_conv

_TAPS = 9  # Of a 3x3 convolution.


class ConvolutionPath(nnx.Module):
    """A linear layer from the heads of q, k and v to nine maps, and a 3x3 convolution with one group per channel.

    At the start the convolution adds up nine shifted maps, one for each tap. It has no bias: the official
    initialiser erases it.
    """

    def __init__(self, width: int, heads: int, rng: np.random.Generator, *, use_bias: bool):
        self.fc = Pointwise(3 * heads, _TAPS, rng, use_bias=use_bias)
        shifts = np.eye(_TAPS, dtype=np.float32).reshape(3, 3, _TAPS, 1)
        self.kernel = nnx.Param(jnp.asarray(np.tile(shifts, (1, 1, 1, width))))
        self.heads = heads

    def __call__(self, qkv: jax.Array) -> jax.Array:
        """Maps qkv [B, H, W, 3 * heads * d], heads outer, to [B, H, W, d * heads], heads inner.

        The official code adds this to attention whose heads are outer; so do the callers.
        """
        maps = self.fc(split_heads(qkv, 3 * self.heads).swapaxes(-1, -2))  # [B, H, W, d, 9]
        groups = maps.shape[-2]
        return grouped_conv(maps.reshape(*qkv.shape[:3], -1), self.kernel[...], groups)


def rate(value: float) -> nnx.Param:
    """Returns the learned strength of a path, [1]."""
    return nnx.Param(jnp.full((1,), value))
