"""Axial attention in its sum form (Ho et al. 2019, as lucidrains/axial-attention writes it)."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seaformer_jax.models.attention.layers import Setting, attend, check_heads, merge_heads, split_heads


class AxisAttention(nnx.Module):
    """Attention among the positions of axis -2, with projections of its own."""

    def __init__(self, width: int, heads: int, rng: np.random.Generator, setting: Setting):
        inner = setting.inner or width
        check_heads(inner, heads)
        self.to_q = setting.project(width, inner, rng, use_bias=False)
        self.to_kv = setting.project(width, 2 * inner, rng, use_bias=False)
        self.to_out = setting.project_back(inner, width, rng)
        self.heads = heads

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps x [B, M, N, C], in which N positions attend to each other, to the same shape."""
        k, v = jnp.split(self.to_kv(x, train), 2, axis=-1)
        q, k, v = (split_heads(t, self.heads) for t in (self.to_q(x, train), k, v))
        return self.to_out(merge_heads(attend(q, k, v)), train)


class AxialSumAttention(nnx.Module):
    """Every position attends to its column and to its row by two complete attentions, which are added.

    There are no positions inside. Ho et al. add learned embeddings of rows and columns once, before the first layer.
    """

    def __init__(self, width: int, heads: int, rng: np.random.Generator, setting: Setting):
        self.along_height, self.along_width = (AxisAttention(width, heads, rng, setting) for _ in range(2))

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps x [B, H, W, C] to the same shape."""
        columns = self.along_height(x.swapaxes(1, 2), train).swapaxes(1, 2)
        return columns + self.along_width(x, train)
