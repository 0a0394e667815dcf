"""Squeeze-enhanced axial attention (SEA): the paper's Section 3.2 and Figure 3, as in the official code."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import seaformer_jax.models.attention.adaptive_squeeze as adaptive_squeeze
from seaformer_jax.models.blocks import ConvBN, Depthwise, Pointwise, add_parameter
from seaformer_jax.models.extents import WHOLE, Extent, Line, WholeLine

POSITIONS = 16  # Entries of a position table, which is interpolated to the length of the axis.


class SqueezeAxialPositionEmbedding(nnx.Module):
    """A learnable table of positions along one axis, which is added to the squeezed queries or keys."""

    def __init__(self, features: int, rng: np.random.Generator):
        self.table = nnx.Param(jnp.asarray(rng.standard_normal((POSITIONS, features)), jnp.float32))

    def __call__(self, tokens: jax.Array, line: Line | WholeLine = WHOLE.rows) -> jax.Array:
        """Adds the table, interpolated to the N positions of `line`, to tokens [B, N, features]."""
        return add_parameter(tokens, line.stretch(self.table[...], tokens.shape[1]))


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
        # The scale starts at 0, so a fresh attention adds nothing to v (see `SeaAttention`).
        encode = Pointwise(values, values, rng)
        self.encode = ConvBN(encode, values, groups=bn_groups, initial_scale=0.0)
        self.heads, self.scale = heads, key_dim**-0.5

    def __call__(
        self, q: jax.Array, k: jax.Array, v: jax.Array, train: bool, line: Line | WholeLine = WHOLE.rows
    ) -> jax.Array:
        """Maps q and k [B, N, heads * key_dim] and v [B, N, heads * value_dim] to the shape of v.

        `line` is the extent of the axis of the tokens.
        """
        if self.query_position is not None:
            q, k = self.query_position(q, line), self.key_position(k, line)
        q, k = self._split(q), self._split(k)  # [B, N, h, d]
        # The softmax is taken in float32, whatever the dtype of the model.
        scores = jnp.einsum("bnhd,bmhd->bhnm", q, k).astype(jnp.float32) * self.scale
        weights = line.softmax(scores, axis=-1).astype(v.dtype)
        out = jnp.einsum("bhnm,bmhd->bnhd", weights, self._split(v)).reshape(v.shape)
        return self.encode(jax.nn.relu6(out), train)

    def _split(self, tokens: jax.Array) -> jax.Array:
        """Reshapes [B, N, heads * d] to [B, N, heads, d]."""
        return tokens.reshape(*tokens.shape[:2], self.heads, -1)


class SeaAttention(nnx.Module):
    """Squeeze axial attention that gates a detail-enhancement branch; both read the same queries, keys and values.

    The official code does three things that the paper's text does not mention. It adds the un-squeezed v to the
    attention output. Each axis has its own ReLU6 and 1x1 convolution. The BatchNorm scales of these convolutions and
    of the projection start at 0, so a fresh block outputs exactly 0.5 * detail.

    The defaults are the published model. The other values of these options are those of the paper's ablation of
    detail enhancement, for which no code was published:

    - `detail_input`: input of the 3x3 depthwise convolution. "qkv": queries, keys and values side by side;
      "conv": a 1x1 convolution of x to the width of x; "upconv": a 1x1 convolution of x to the width of qkv;
      "none": there is no detail branch, and the projected attention is the output.
    - `detail_combine`: "multiply": the hard sigmoid of the attention times the detail; "add": their sum, without a
      sigmoid because nothing is gated.
    - `position_embedding`: whether the squeezed queries and keys have position embeddings.
    - `axial`: False leaves detail enhancement without attention; its output is not gated.

    SeaFormer++ squeezes and expands by weights that depend on the input, see `adaptive_squeeze`:

    - `adaptive`: steps that are adaptive: "none", "both", "squeeze" or "expand".
    - `adaptive_source`: source of the weights: "x" for the block's input, "q" for the queries.
    - `adaptive_shared`: whether all heads share the weights.
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
        axial: bool = True,
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

        # 1. Queries, keys and values.
        self.to_q, self.to_k, self.to_v = (
            pointwise(width, keys),
            pointwise(width, keys),
            pointwise(width, values),
        )
        # 2. The attention of each axis, and the projection of their sum; its scale starts at 0.
        self.row, self.column = (axis(), axis()) if axial else (None, None)
        self.project = pointwise(values, width, initial_scale=0.0) if axial else None
        inputs, groups = (keys if adaptive_source == "q" else width), (1 if adaptive_shared else heads)
        self.squeeze, self.expand = adaptive_squeeze.create(adaptive, inputs, groups, adaptive_expansion)
        self.adaptive_source = adaptive_source
        # 3. The detail branch.
        self.detail_input, self.detail_combine = detail_input, detail_combine
        if detail_input == "none":
            return
        detail = width if detail_input == "conv" else 2 * keys + values
        self.to_detail = None if detail_input == "qkv" else pointwise(width, detail)
        self.detail_depthwise = ConvBN(Depthwise(detail, 3, rng), detail, groups=bn_groups)
        self.detail_pointwise = pointwise(detail, width)

    def __call__(self, x: jax.Array, train: bool, extent: Extent = WHOLE) -> jax.Array:
        """Maps x [B, H, W, C] to the same shape."""
        q, k, v = self.to_q(x, train), self.to_k(x, train), self.to_v(x, train)  # [B, H, W, h * d]
        if self.project is None:
            return self._detail(x, q, k, v, train, extent)
        # The official code adds v, and the paper's text does not mention it.
        attended = v + self._axial(q if self.adaptive_source == "q" else x, q, k, v, train, extent)
        attended = self.project(jax.nn.relu6(attended), train)
        if self.detail_input == "none":
            return attended
        detail = self._detail(x, q, k, v, train, extent)
        return attended + detail if self.detail_combine == "add" else jax.nn.hard_sigmoid(attended) * detail

    def _axial(
        self, source: jax.Array, q: jax.Array, k: jax.Array, v: jax.Array, train: bool, extent: Extent
    ) -> jax.Array:
        """Returns the sum of both branches of equation 5, [B, H, W, h * d].

        Args:
            source: Feature map that the adaptive weights are computed from, [B, H, W, C].
            q, k, v: Queries, keys and values, [B, H, W, h * d] (d is larger for the values).
            train: Normalise by batch statistics and update the running ones.
            extent: Extent of all these maps.
        """
        # Row tokens are means over the columns (axis 2), column tokens means over the rows (axis 1).
        if self.squeeze is None:
            rows = [extent.columns.mean(t, 2) for t in (q, k, v)]
            columns = [extent.rows.mean(t, 1) for t in (q, k, v)]
        else:
            rows, columns = self.squeeze(source, q, k, v, extent=extent)
        row = self.row(*rows, train, extent.rows)  # [B, H, h * d]
        column = self.column(*columns, train, extent.columns)  # [B, W, h * d]
        return row[:, :, None] + column[:, None] if self.expand is None else self.expand(source, row, column)

    def _detail(
        self, x: jax.Array, q: jax.Array, k: jax.Array, v: jax.Array, train: bool, extent: Extent
    ) -> jax.Array:
        qkv = self.detail_input == "qkv"
        detail = jnp.concatenate([q, k, v], axis=-1) if qkv else self.to_detail(x, train)
        return self.detail_pointwise(jax.nn.relu6(self.detail_depthwise(detail, train, extent)), train)
