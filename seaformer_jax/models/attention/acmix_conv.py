"""ACmix with a sliding neighbourhood, the form of the authors' ACmix-ResNet.

It is here for parity: its 49 shifted copies of keys and values make it slow, and the authors advise against it.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seaformer_jax.errors import UserError
from seaformer_jax.models.attention.acmix_paths import ConvolutionPath, rate
from seaformer_jax.models.attention.layers import Setting, check_heads, merge_heads, split_heads
from seaformer_jax.models.blocks import Pointwise

_WINDOW = 7  # Side of the neighbourhood.
_HEADS_PER_HEAD = 2  # The authors' model has twice as many heads as windows of the same width would have.


class AcmixConvAttention(nnx.Module):
    """The weighted sum of attention to the 7x7 neighbourhood and of a convolution of the same queries, keys, values.

    The neighbourhood of a border position is reflected. Logits have a learned linear function of the coordinates,
    taken here minus there. There is no output projection.
    """

    def __init__(self, width: int, heads: int, rng: np.random.Generator, setting: Setting):
        self.heads = _HEADS_PER_HEAD * heads
        check_heads(width, self.heads)
        self.query, self.key, self.value = (setting.project(width, width, rng) for _ in range(3))
        self.position = Pointwise(2, width // self.heads, rng, use_bias=True)
        self.path = ConvolutionPath(width, self.heads, rng, use_bias=False)
        self.rate1, self.rate2 = (rate(0.5 * setting.start) for _ in range(2))

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps x [B, H, W, C] to the same shape.

        Raises:
            UserError: The map is too small to be reflected.
        """
        if min(x.shape[1:3]) <= _WINDOW // 2:
            raise UserError(
                f"acmix_conv got a map of {x.shape[1]}x{x.shape[2]}; expected at least 4x4, because it reflects 3 "
                "rows and columns; choose larger images or another kind of attention"
            )
        q, k, v = (layer(x, train) for layer in (self.query, self.key, self.value))
        convolved = self.path(jnp.concatenate([q, k, v], axis=-1))
        attended = self._attend(*(split_heads(t, self.heads) for t in (q, k, v)))
        rates = (r[...].astype(x.dtype) for r in (self.rate1, self.rate2))
        return sum(r * path for r, path in zip(rates, (merge_heads(attended), convolved), strict=True))

    def _attend(self, q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        """Attends to the neighbourhoods; all arrays are [B, H, W, heads, d]."""
        q = q * q.shape[-1] ** -0.5
        here = self.position(_coordinates(*q.shape[1:3])).astype(q.dtype)[None, :, :, None]  # [1, H, W, 1, d]
        # logit = q . (k_there + here - there); one neighbour of all positions at a time.
        keys = [k_there - there for k_there, there in zip(_neighbours(k), _neighbours(here), strict=True)]
        logits = jnp.stack([jnp.sum(q * (key + here), -1, dtype=jnp.float32) for key in keys], axis=-1)
        weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)  # [B, H, W, heads, 49]
        return sum(weights[..., n, None] * there for n, there in enumerate(_neighbours(v)))


def _coordinates(height: int, width: int) -> jax.Array:
    """Returns (x, y) of each position in [-1, 1], float32 [H, W, 2]."""
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    return jnp.asarray(np.stack([x, y], axis=-1), jnp.float32)


def _neighbours(x: jax.Array) -> list[jax.Array]:
    """Returns the 49 shifted copies of x [B, H, W, heads, d], in reading order."""
    height, width = x.shape[1:3]
    around = (_WINDOW // 2,) * 2
    padded = jnp.pad(x, ((0, 0), around, around, (0, 0), (0, 0)), mode="reflect")
    return [padded[:, i : i + height, j : j + width] for i in range(_WINDOW) for j in range(_WINDOW)]
