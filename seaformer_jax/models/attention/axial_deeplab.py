"""Position-sensitive axial attention of Axial-DeepLab (Wang et al. 2020, csrhddlam/axial-deeplab)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seaformer_jax.errors import UserError
from seaformer_jax.models.attention.layers import Setting, check_heads, split_heads
from seaformer_jax.models.batch_norm import BatchNorm
from seaformer_jax.models.blocks import Pointwise

_GROUPS_PER_HEAD = 2  # Groups of c channels have queries and keys of c / 2.


class PositionSensitiveAttention(nnx.Module):
    """Attention among the L positions of axis -2; queries, keys and values have tables of relative positions.

    The logits are BN(q k) + BN(q r_q) + BN(k r_k), without 1 / sqrt(d). The output is BN(sum a v) + BN(sum a r_v).

    Args:
        width: Channels C of input and output.
        groups: Heads, of C / groups channels for values and half of that for queries and keys.
        length: Number of positions L.
        rng: Source of the initial values.
        bn_groups: See `BatchNorm`.
        start: Initial scale of the last BatchNorm.
    """

    def __init__(
        self, width: int, groups: int, length: int, rng: np.random.Generator, bn_groups: int, start: float
    ):
        channels = width // groups
        self.qkv, self.qkv_bn = Pointwise(width, 2 * width, rng), BatchNorm(2 * width, groups=bn_groups)
        table = rng.standard_normal((2 * channels, 2 * length - 1)) * channels**-0.5
        self.relative = nnx.Param(jnp.asarray(table, jnp.float32))
        self.logit_bn = BatchNorm(3 * groups, groups=bn_groups)
        self.output_bn = BatchNorm(2 * width, groups=bn_groups, initial_scale=start)
        self.groups, self.length = groups, length

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps x [B, M, L, C], in which L positions attend to each other, to the same shape."""
        qkv = split_heads(self.qkv_bn(self.qkv(x), train), self.groups)  # [B, M, L, g, 2c]
        parts = np.array([1, 2]) * (qkv.shape[-1] // 4)  # Ends of q and k.
        q, k, v = jnp.split(qkv, parts, axis=-1)
        weights = jax.nn.softmax(self._logits(q, k, train), axis=3).astype(v.dtype)  # [B, M, L, L, g]
        table = self._table(parts[1], None).astype(v.dtype)
        values = jnp.einsum("bmijg,bmjgc->bmigc", weights, v)
        positions = jnp.einsum("bmijg,cij->bmigc", weights, table)
        both = jnp.stack(
            [values, positions], axis=-1
        )  # In BatchNorm's channels, a value is next to its position.
        normalized = self.output_bn(both.reshape(*x.shape[:3], -1), train)
        return normalized.reshape(*x.shape, 2).sum(-1)

    def _logits(self, q: jax.Array, k: jax.Array, train: bool) -> jax.Array:
        """Returns float32 logits [B, M, L queries, L keys, g] from q and k [B, M, L, g, c / 2]."""
        half = q.shape[-1]
        tables = self._table(0, half).astype(q.dtype), self._table(half, 2 * half).astype(q.dtype)
        einsum = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
        parts = [
            einsum("bmigc,bmjgc->bmijg", q, k),
            einsum("bmigc,cij->bmijg", q, tables[0]),
            einsum("bmjgc,cji->bmijg", k, tables[1]),
        ]
        logits = self.logit_bn(jnp.concatenate(parts, axis=-1), train)
        return sum(jnp.split(logits, 3, axis=-1))

    def _table(self, begin: int, end: int | None) -> jax.Array:
        """Returns rows of the table by position, [channels, L, L]; entry (i, j) is that of the distance i - j."""
        positions = np.arange(self.length)
        return self.relative[...][begin:end, positions[:, None] - positions + self.length - 1]


class AxialDeeplabAttention(nnx.Module):
    """Position-sensitive attention along the columns, then along the rows; there is no output projection.

    The tables of relative positions fix the size of the feature map: one module per size.
    """

    def __init__(self, width: int, heads: int, rng: np.random.Generator, setting: Setting):
        if setting.size is None:
            raise UserError(
                "axial_deeplab has a table for each length; give the size (height, width) of its map"
            )
        groups, bn_groups = _GROUPS_PER_HEAD * heads, setting.bn_groups
        check_heads(width, 2 * groups)
        height, length = setting.size
        self.along_height = PositionSensitiveAttention(width, groups, height, rng, bn_groups, 1.0)
        self.along_width = PositionSensitiveAttention(width, groups, length, rng, bn_groups, setting.start)
        self.size = tuple(setting.size)

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps x [B, H, W, C] to the same shape.

        Raises:
            UserError: H and W are not the size that the tables are for.
        """
        if x.shape[1:3] != self.size:
            raise UserError(
                f"axial_deeplab got a map of {x.shape[1]}x{x.shape[2]}; expected {self.size[0]}x{self.size[1]}, the "
                "size that its tables are for; build the module for this size"
            )
        x = self.along_height(x.swapaxes(1, 2), train).swapaxes(1, 2)
        return self.along_width(x, train)
