"""Squeeze-enhanced axial attention (SEA): the paper's Section 3.2 and Figure 3, as official code has it."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seaformer_jax.models.attention import adaptive_squeeze
from seaformer_jax.models.blocks import ConvBN, Depthwise, Pointwise
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

    def __init__(
        self,
        heads: int,
        key_dim: int,
        value_dim: int,
        bn_groups: int,
        rng: np.random.Generator,
        *,
        position_embedding: bool = True,
    ):
        values = heads * value_dim

        def position() -> SqueezeAxialPositionEmbedding | None:
            return SqueezeAxialPositionEmbedding(heads * key_dim, rng) if position_embedding else None

        self.query_position, self.key_position = position(), position()
        encode = Pointwise(values, values, rng)
        self.encode = ConvBN(encode, values, groups=bn_groups, initial_scale=0.0)
        self.heads, self.scale = heads, key_dim**-0.5

    def __call__(self, q: jax.Array, k: jax.Array, v: jax.Array, train: bool) -> jax.Array:
        """q, k [B, N, heads * key_dim], v [B, N, heads * value_dim] -> [B, N, heads * value_dim]."""
        if self.query_position is not None:
            q, k = self.query_position(q), self.key_position(k)
        q, k = self._split(q), self._split(k)  # [B, N, h, d]
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

    The other values of the options are those of the paper's ablation of detail enhancement, for which no code
    was published:

    - `detail_input`: what the 3x3 depthwise convolution reads. "qkv": queries, keys and values side by side;
      "conv": a 1x1 convolution of x to the width of x; "upconv": one to the width of qkv; "none": there is no
      detail branch, and the projected attention is the output.
    - `detail_combine`: "multiply": the attention's hard sigmoid times the detail; "add": the sum of both,
      where nothing is gated and thus no sigmoid stands.

    SeaFormer++ squeezes and expands by weights that depend on the input, see `adaptive_squeeze`:

    - `adaptive`: "none", "both", "squeeze" or "expand".
    - `adaptive_source`: what the weights are computed from, "x" or the queries, "q".
    - `adaptive_shared`: whether all heads have the same weights.
    - `adaptive_expansion`: "linear" or "sigmoid".
    """

    def __init__(
        self,
        width: int,
        key_dim: int,
        heads: int,
        value_ratio: int,
        bn_groups: int,
        rng: np.random.Generator,
        *,
        detail_input: str = "qkv",
        detail_combine: str = "multiply",
        position_embedding: bool = True,
        adaptive: str = "none",
        adaptive_source: str = "x",
        adaptive_shared: bool = False,
        adaptive_expansion: str = "linear",
    ):
        keys, values = heads * key_dim, heads * key_dim * value_ratio

        def pointwise(inputs: int, outputs: int, initial_scale: float = 1.0) -> ConvBN:
            conv = Pointwise(inputs, outputs, rng)
            return ConvBN(conv, outputs, groups=bn_groups, initial_scale=initial_scale)

        def axis() -> AxialAttention:
            value_dim = key_dim * value_ratio
            return AxialAttention(
                heads, key_dim, value_dim, bn_groups, rng, position_embedding=position_embedding
            )

        self.to_q, self.to_k, self.to_v = (
            pointwise(width, keys),
            pointwise(width, keys),
            pointwise(width, values),
        )
        self.row, self.column = axis(), axis()
        self.project = pointwise(values, width, initial_scale=0.0)
        inputs, groups = (keys if adaptive_source == "q" else width), (1 if adaptive_shared else heads)
        self.squeeze, self.expand = adaptive_squeeze.create(adaptive, inputs, groups, adaptive_expansion)
        self.adaptive_source = adaptive_source
        self.detail_input, self.detail_combine = detail_input, detail_combine
        if detail_input == "none":
            return
        detail = width if detail_input == "conv" else 2 * keys + values
        self.to_detail = None if detail_input == "qkv" else pointwise(width, detail)
        self.detail_depthwise = ConvBN(Depthwise(detail, 3, rng), detail, groups=bn_groups)
        self.detail_pointwise = pointwise(detail, width)

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """x [B, H, W, C] -> [B, H, W, C]."""
        q, k, v = self.to_q(x, train), self.to_k(x, train), self.to_v(x, train)  # [B, H, W, h * d]
        attended = v + self._axial(q if self.adaptive_source == "q" else x, q, k, v, train)
        attended = self.project(jax.nn.relu6(attended), train)
        if self.detail_input == "none":
            return attended
        detail = self._detail(x, q, k, v, train)
        return attended + detail if self.detail_combine == "add" else jax.nn.hard_sigmoid(attended) * detail

    def _axial(self, source: jax.Array, q: jax.Array, k: jax.Array, v: jax.Array, train: bool) -> jax.Array:
        """Both branches of equation 5 -> [B, H, W, h * d]; `source` is for the adaptive weights."""
        if self.squeeze is None:
            rows, columns = ([t.mean(axis) for t in (q, k, v)] for axis in (2, 1))
        else:
            rows, columns = self.squeeze(source, q, k, v)
        row, column = self.row(*rows, train), self.column(*columns, train)  # [B, H, h * d], [B, W, h * d]
        return row[:, :, None] + column[:, None] if self.expand is None else self.expand(source, row, column)

    def _detail(self, x: jax.Array, q: jax.Array, k: jax.Array, v: jax.Array, train: bool) -> jax.Array:
        qkv = self.detail_input == "qkv"
        detail = jnp.concatenate([q, k, v], axis=-1) if qkv else self.to_detail(x, train)
        return self.detail_pointwise(jax.nn.relu6(self.detail_depthwise(detail, train)), train)
