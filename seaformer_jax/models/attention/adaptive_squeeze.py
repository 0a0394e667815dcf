"""Adaptive squeezing and expanding of SEA attention: the two matrix products of SeaFormer++ (IJCV 2025), Figure 4.

No code was published, and of the paper's text only the figure's caption could be read: both steps are products with
matrices that depend on the input. The formulas here are ours. They contain the ICLR model: with the convolutions at
0, where they start, squeezing is the mean and expanding a plain broadcast.

The convolutions make G channels, one for each head, or one for all of them; each weighs C / G channels of the tokens.
What they give is divided by the square root of the channels that they sum over, as the scores of attention are: Adam
moves all channels' weights by the same amount whatever their gradients, and from their start at 0 the sum would grow
with the channels, the softmax towards one position and the gains without bound.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from seaformer_jax.models.blocks import Pointwise


class AdaptiveMap(Pointwise):
    """conv1x1(x) / sqrt(inputs), without bias.

    The weights start at 0, and so leave the random numbers to the others.
    """

    def __init__(self, inputs: int, outputs: int):
        self.kernel, self.bias = nnx.Param(jnp.zeros((inputs, outputs))), None

    def __call__(self, x: jax.Array) -> jax.Array:
        return super().__call__(x) * x.shape[-1] ** -0.5


class AdaptiveSqueeze(nnx.Module):
    """Weighted means along each axis, in the place of means.

    With a = conv1x1(source) / sqrt(inputs), the token of row i is sum_j softmax_j(a[i, j]) t[i, j], that of column j
    is sum_i softmax_i(a[i, j]) t[i, j], for t each of queries, keys and values.
    """

    def __init__(self, inputs: int, groups: int):
        self.map = AdaptiveMap(inputs, groups)

    def __call__(self, source: jax.Array, *maps: jax.Array) -> tuple[list[jax.Array], list[jax.Array]]:
        """Squeezes each of the maps, of whatever width.

        Args:
            source: [B, H, W, inputs].
            *maps: [B, H, W, C].
        Returns:
            The row tokens [B, H, C] of all maps, and their column tokens [B, W, C].
        """
        scores = self.map(source).astype(jnp.float32)
        by_row, by_column = (jax.nn.softmax(scores, axis=axis).astype(source.dtype) for axis in (2, 1))
        rows = [_merge(jnp.einsum("bijg,bijgd->bigd", by_row, _split(t, by_row))) for t in maps]
        columns = [_merge(jnp.einsum("bijg,bijgd->bjgd", by_column, _split(t, by_column))) for t in maps]
        return rows, columns


class AdaptiveExpand(nnx.Module):
    """What attention found for rows and columns, broadcast with a gain for every position, and summed.

    With a = conv1x1(source) / sqrt(inputs) and b = 1 + a it is b[i, j] row[i] + b[i, j] column[j]. With `sigmoid`,
    b is 2 sigmoid(a): between 0 and 2, and 1 at the start, too.
    """

    def __init__(self, inputs: int, groups: int, *, sigmoid: bool):
        self.map = AdaptiveMap(inputs, groups)
        self.sigmoid = sigmoid

    def __call__(self, source: jax.Array, row: jax.Array, column: jax.Array) -> jax.Array:
        """source [B, H, W, inputs], row [B, H, C], column [B, W, C] -> [B, H, W, C]."""
        gain = self.map(source)
        gain = 2 * jax.nn.sigmoid(gain) if self.sigmoid else 1 + gain
        row = jnp.einsum("bijg,bigd->bijgd", gain, _split(row, gain))
        column = jnp.einsum("bijg,bjgd->bijgd", gain, _split(column, gain))
        return _merge(row + column)


def create(
    adaptive: str, inputs: int, groups: int, expansion: str
) -> tuple[AdaptiveSqueeze | None, AdaptiveExpand | None]:
    """Returns the two steps; None stands for the mean and the broadcast of the ICLR model.

    Args:
        adaptive: "none", "both", "squeeze" or "expand".
        inputs: channels of what the weights are computed from.
        groups: 1, or the number of heads.
        expansion: "linear" or "sigmoid".
    """
    squeeze = AdaptiveSqueeze(inputs, groups) if adaptive in ("both", "squeeze") else None
    sigmoid = expansion == "sigmoid"
    expand = AdaptiveExpand(inputs, groups, sigmoid=sigmoid) if adaptive in ("both", "expand") else None
    return squeeze, expand


def _split(tokens: jax.Array, weights: jax.Array) -> jax.Array:
    """[..., C] -> [..., G, C / G], G the channels of `weights`."""
    return tokens.reshape(*tokens.shape[:-1], weights.shape[-1], -1)


def _merge(tokens: jax.Array) -> jax.Array:
    return tokens.reshape(*tokens.shape[:-2], -1)
