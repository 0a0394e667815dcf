"""Adaptive squeezing and expanding of SEA attention: the two matrix products of SeaFormer++ (IJCV 2025), Figure 4.

No code was published, and only the figure's caption could be read, not the text of the paper. The caption says that
both steps are products with matrices that depend on the input. The formulas here are ours. They contain the SeaFormer
of the ICLR paper: the convolutions start at 0, where squeezing is the mean and expanding is a plain broadcast.

The convolutions have G output channels: one for each head, or a single one for all heads. Each of them weighs C / G
channels of the tokens. Their output is divided by the square root of the channels that they sum over, like the scores
of attention. The reason is Adam: it moves the weights of all channels by the same amount, whatever their gradients.
Starting from 0, the undivided sum would grow with the number of channels. The softmax would then concentrate on one
position, and the gains would grow without bound.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from seaformer_jax.models.blocks import Pointwise
from seaformer_jax.models.extents import WHOLE, Extent


class AdaptiveMap(Pointwise):
    """conv1x1(x) / sqrt(inputs), without bias: [..., inputs] -> [..., outputs].

    The weights start at 0. They draw no random numbers, so the other weights are those of the ICLR model for a seed.
    """

    def __init__(self, inputs: int, outputs: int):
        self.kernel, self.bias = nnx.Param(jnp.zeros((inputs, outputs))), None

    def __call__(self, x: jax.Array) -> jax.Array:
        return super().__call__(x) * x.shape[-1] ** -0.5


class AdaptiveSqueeze(nnx.Module):
    """Squeezes feature maps along each axis by weighted means; the ICLR model takes plain means.

    With a = conv1x1(source) / sqrt(inputs), the token of row i is sum_j softmax_j(a[i, j]) t[i, j], and the token of
    column j is sum_i softmax_i(a[i, j]) t[i, j]. Here t is the map of the queries, the keys or the values.
    """

    def __init__(self, inputs: int, groups: int):
        self.map = AdaptiveMap(inputs, groups)

    def __call__(
        self, source: jax.Array, *maps: jax.Array, extent: Extent = WHOLE
    ) -> tuple[list[jax.Array], list[jax.Array]]:
        """Squeezes each of the maps.

        Args:
            source: Feature map that the weights are computed from, [B, H, W, inputs].
            *maps: Feature maps [B, H, W, C] to squeeze; C may differ between them.
            extent: Extent of all these maps; padding gets no weight.
        Returns:
            The row tokens [B, H, C] of all maps, and their column tokens [B, W, C].
        """
        # The softmax is in float32: over a row (axis 2) for row tokens, over a column (axis 1) for column tokens.
        scores = self.map(source).astype(jnp.float32)
        by_row = extent.columns.softmax(scores, axis=2).astype(source.dtype)
        by_column = extent.rows.softmax(scores, axis=1).astype(source.dtype)
        rows = [_merge(jnp.einsum("bijg,bijgd->bigd", by_row, _split(t, by_row))) for t in maps]
        columns = [_merge(jnp.einsum("bijg,bijgd->bjgd", by_column, _split(t, by_column))) for t in maps]
        return rows, columns


class AdaptiveExpand(nnx.Module):
    """Broadcasts the attention outputs of rows and columns with a gain for every position, and adds them.

    With a = conv1x1(source) / sqrt(inputs) and b = 1 + a, the output is b[i, j] row[i] + b[i, j] column[j]. With
    `sigmoid`, b is 2 sigmoid(a) instead, which lies between 0 and 2. Both start at b = 1.
    """

    def __init__(self, inputs: int, groups: int, *, sigmoid: bool):
        self.map = AdaptiveMap(inputs, groups)
        self.sigmoid = sigmoid

    def __call__(self, source: jax.Array, row: jax.Array, column: jax.Array) -> jax.Array:
        """Maps source [B, H, W, inputs], row [B, H, C] and column [B, W, C] to [B, H, W, C]."""
        gain = self.map(source)
        gain = 2 * jax.nn.sigmoid(gain) if self.sigmoid else 1 + gain
        row = jnp.einsum("bijg,bigd->bijgd", gain, _split(row, gain))
        column = jnp.einsum("bijg,bjgd->bijgd", gain, _split(column, gain))
        return _merge(row + column)


def create(
    adaptive: str, inputs: int, groups: int, expansion: str
) -> tuple[AdaptiveSqueeze | None, AdaptiveExpand | None]:
    """Creates the adaptive steps of an attention block.

    Args:
        adaptive: Steps that are adaptive: "none", "both", "squeeze" or "expand".
        inputs: Channels of the feature map that the weights are computed from.
        groups: Number of heads, or 1 if all heads share the weights.
        expansion: "linear" or "sigmoid", see `AdaptiveExpand`.
    Returns:
        The squeezing and the expanding step. A step that is not adaptive is None, which means the mean or the plain
        broadcast of the ICLR model.
    """
    squeeze = AdaptiveSqueeze(inputs, groups) if adaptive in ("both", "squeeze") else None
    sigmoid = expansion == "sigmoid"
    expand = AdaptiveExpand(inputs, groups, sigmoid=sigmoid) if adaptive in ("both", "expand") else None
    return squeeze, expand


def _split(tokens: jax.Array, weights: jax.Array) -> jax.Array:
    """Reshapes [..., C] to [..., G, C / G], where G is the number of channels of `weights`."""
    return tokens.reshape(*tokens.shape[:-1], weights.shape[-1], -1)


def _merge(tokens: jax.Array) -> jax.Array:
    """Reshapes [..., G, C / G] to [..., C]."""
    return tokens.reshape(*tokens.shape[:-2], -1)
