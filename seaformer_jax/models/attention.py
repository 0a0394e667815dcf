"""Squeeze-enhanced axial attention (SEA): the paper's Section 3.2 and Figure 3, as official code has it."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seaformer_jax.models.layers import ConvBN, Depthwise, Pointwise
from seaformer_jax.resize import resize_linear

POSITIONS = 16  # Entries of a position table; it is interpolated to the length of the axis.


class SqueezeAxialPositionEmbedding(nnx.Module):
    """A learnable table of positions along one axis, added to squeezed queries or keys."""

    def __init__(self, features: int, rng: np.random.Generator):
        self.table = nnx.Param(jnp.asarray(rng.standard_normal((POSITIONS, features)), jnp.float32))

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """tokens [B, N, features] -> the same, plus the table interpolated to N entries."""
        table = resize_linear(self.table[...], tokens.shape[1:])
        return tokens + table.astype(tokens.dtype)


class AxialAttention(nnx.Module):
    """Multi-head attention between the squeezed tokens of one axis (one branch of equation 5)."""

    def __init__(self, heads: int, key_dim: int, value_dim: int, bn_groups: int, rng: np.random.Generator):
        values = heads * value_dim
        self.query_position = SqueezeAxialPositionEmbedding(heads * key_dim, rng)
        self.key_position = SqueezeAxialPositionEmbedding(heads * key_dim, rng)
        encode = Pointwise(values, values, rng)
        self.encode = ConvBN(encode, values, groups=bn_groups, initial_scale=0.0)
        self.heads, self.scale = heads, key_dim**-0.5

    def __call__(self, q: jax.Array, k: jax.Array, v: jax.Array, train: bool) -> jax.Array:
        """q, k [B, N, heads * key_dim], v [B, N, heads * value_dim] -> [B, N, heads * value_dim]."""
        q = self._split(self.query_position(q))  # [B, N, h, d]
        k = self._split(self.key_position(k))
        scores = jnp.einsum("bnhd,bmhd->bhnm", q, k).astype(jnp.float32) * self.scale
        weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
        out = jnp.einsum("bhnm,bmhd->bnhd", weights, self._split(v)).reshape(v.shape)
        return self.encode(jax.nn.relu6(out), train)

    def _split(self, tokens: jax.Array) -> jax.Array:
        return tokens.reshape(*tokens.shape[:2], self.heads, -1)


class SeaAttention(nnx.Module):
    """Squeeze axial attention gates a detail-enhancement branch; both read the same queries, keys and values.

    What the code does and the paper's text does not say: the un-squeezed v is added to the attention output,
    each axis has a ReLU6 + 1x1 convolution of its own, and their BatchNorm scales start at 0, so that a fresh
    block gives exactly 0.5 * detail.
    """

    def __init__(
        self, width: int, key_dim: int, heads: int, value_ratio: int, bn_groups: int, rng: np.random.Generator
    ):
        keys, values = heads * key_dim, heads * key_dim * value_ratio

        def pointwise(inputs: int, outputs: int, initial_scale: float = 1.0) -> ConvBN:
            conv = Pointwise(inputs, outputs, rng)
            return ConvBN(conv, outputs, groups=bn_groups, initial_scale=initial_scale)

        def axis() -> AxialAttention:
            return AxialAttention(heads, key_dim, key_dim * value_ratio, bn_groups, rng)

        self.to_q, self.to_k, self.to_v = (
            pointwise(width, keys),
            pointwise(width, keys),
            pointwise(width, values),
        )
        self.row, self.column = axis(), axis()
        self.project = pointwise(values, width, initial_scale=0.0)
        detail = 2 * keys + values
        self.detail_depthwise = ConvBN(Depthwise(detail, 3, rng), detail, groups=bn_groups)
        self.detail_pointwise = pointwise(detail, width)

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """x [B, H, W, C] -> [B, H, W, C]."""
        q, k, v = self.to_q(x, train), self.to_k(x, train), self.to_v(x, train)  # [B, H, W, h * d]
        detail = jax.nn.relu6(self.detail_depthwise(jnp.concatenate([q, k, v], axis=-1), train))
        detail = self.detail_pointwise(detail, train)

        row = self.row(q.mean(2), k.mean(2), v.mean(2), train)  # squeezed over W: [B, H, h * d]
        column = self.column(q.mean(1), k.mean(1), v.mean(1), train)  # squeezed over H: [B, W, h * d]
        attended = v + (row[:, :, None] + column[:, None])
        gate = self.project(jax.nn.relu6(attended), train)
        return jax.nn.hard_sigmoid(gate) * detail
