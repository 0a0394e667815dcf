"""Windows of a feature map: padding, partition, relative positions, and the mask of shifted windows.

As in Swin (Liu et al. 2021, microsoft/Swin-Transformer). Maps that no window divides are padded with zeros on the
right and below, and padding is not masked, as in mmsegmentation's `ShiftWindowMSA`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seaformer_jax.models.attention.layers import attend, merge_heads, split_heads

_MASKED = -100.0  # Finite, as in Swin, so that no row of the softmax is NaN.


def bias_table(window: int, heads: int, rng: np.random.Generator) -> nnx.Param:
    """Returns a table [(2 * window - 1)^2, heads] from N(0, 0.02^2), Swin's initial values."""
    shape = ((2 * window - 1) ** 2, heads)
    return nnx.Param(jnp.asarray(0.02 * rng.standard_normal(shape), jnp.float32))


def pad(x: jax.Array, window: int) -> jax.Array:
    """Pads x [B, H, W, C] with zeros, right and below, to multiples of `window`."""
    below, right = (-side % window for side in x.shape[1:3])
    return jnp.pad(x, ((0, 0), (0, below), (0, right), (0, 0))) if below or right else x


def enter(x: jax.Array, window: int, shifted: bool) -> tuple[jax.Array, int]:
    """Returns x [B, H, W, C] padded and, for shifted windows, rolled up and left by half a window, and this shift.

    A map with a single row or column of windows is not shifted, as in Swin.
    """
    shift = window // 2 if shifted and min(x.shape[1:3]) > window else 0
    padded = pad(x, window)
    return jnp.roll(padded, (-shift, -shift), (1, 2)) if shift else padded, shift


def leave(x: jax.Array, shift: int, shape: tuple[int, ...]) -> jax.Array:
    """Undoes `enter`: rolls back and crops to `shape` [B, H, W, C]."""
    rolled = jnp.roll(x, (shift, shift), (1, 2)) if shift else x
    return rolled[:, : shape[1], : shape[2]]


def partition(x: jax.Array, window: int) -> jax.Array:
    """Splits x [B, H, W, C] into windows, [B, windows, window^2, C]; all arrays on the way have four axes."""
    batch, height, width, channels = x.shape
    rows = x.reshape(batch * height // window, window, width // window, window * channels).swapaxes(1, 2)
    return rows.reshape(batch, height * width // window**2, window**2, channels)


def merge(windows: jax.Array, window: int, shape: tuple[int, ...]) -> jax.Array:
    """Puts windows [B, windows, window^2, C] back into a map of `shape` [B, H, W, ...]."""
    batch, height, width = shape[:3]
    channels = windows.shape[-1]
    rows = windows.reshape(batch * height // window, width // window, window, window * channels)
    return rows.swapaxes(1, 2).reshape(batch, height, width, channels)


def attend_in_windows(qkv: jax.Array, table: jax.Array, heads: int, window: int, shift: int) -> jax.Array:
    """Multi-head attention inside each window of a padded map that is rolled by `shift` already.

    Args:
        qkv: [B, H, W, 3 * heads * d], H and W multiples of `window`.
        table: float32 [(2 * window - 1)^2, heads], added to the logits by relative position.
        heads: Number of heads.
        window: Side of a window.
        shift: Rows and columns that the map is rolled by; what was not adjacent does not attend to each other.
    Returns:
        [B, H, W, heads * d].
    """
    q, k, v = (split_heads(t, heads) for t in jnp.split(partition(qkv, window), 3, axis=-1))
    bias = table[relative_index(window)].transpose(2, 0, 1)  # [heads, window^2, window^2]
    if shift:
        bias = bias + shift_mask(*qkv.shape[1:3], window, shift)[:, None]
    return merge(merge_heads(attend(q, k, v, bias)), window, qkv.shape)


@functools.cache
def relative_index(window: int) -> np.ndarray:
    """Returns the entry of the table for each query and key: int [window^2, window^2]."""
    y, x = (axis.ravel() for axis in np.mgrid[:window, :window])
    rows, columns = y[:, None] - y + window - 1, x[:, None] - x + window - 1
    return rows * (2 * window - 1) + columns


@functools.cache
def shift_mask(height: int, width: int, window: int, shift: int) -> np.ndarray:
    """Returns the mask of a rolled map: float32 [windows, window^2, window^2], 0 or -100.

    Rolling brings the other side of the map next to the last rows and columns. They are regions of their own, cut at
    -window and -shift of the padded map.
    """
    cuts = [
        np.searchsorted([side - window, side - shift], np.arange(side), "right") for side in (height, width)
    ]
    regions = 3 * cuts[0][:, None] + cuts[1]
    rows = regions.reshape(height // window, window, width // window, window).swapaxes(1, 2)
    regions = rows.reshape(-1, window**2)
    return np.where(regions[:, :, None] == regions[:, None], 0.0, _MASKED).astype(np.float32)
