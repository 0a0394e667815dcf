"""Full attention of the Transformer, as timm's `Attention` in the official seaformer-cls: no positions inside."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seaformer_jax.models.attention.layers import Setting, attend, check_heads, merge_heads, split_heads


class VanillaAttention(nnx.Module):
    """Every position attends to every position."""

    def __init__(self, width: int, heads: int, rng: np.random.Generator, setting: Setting):
        inner = setting.inner or width
        check_heads(inner, heads)
        self.qkv = setting.project(width, 3 * inner, rng)
        self.proj = setting.project_back(inner, width, rng)
        self.heads = heads

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps x [B, H, W, C] to the same shape."""
        batch, height, width, _ = x.shape
        qkv = self.qkv(x, train).reshape(batch, height * width, -1)
        q, k, v = (split_heads(t, self.heads) for t in jnp.split(qkv, 3, axis=-1))
        out = merge_heads(attend(q, k, v))
        return self.proj(out.reshape(batch, height, width, -1), train)
