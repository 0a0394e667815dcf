"""Resizing of crops, each of its own size, to the model's input inside the training step."""

import jax
import jax.numpy as jnp


def resize_crops(
    windows: jax.Array,
    size: jax.Array,
    upright: jax.Array,
    mirrored: jax.Array,
    cubic: jax.Array,
    side: int,
) -> jax.Array:
    """Resizes the crop in each window to a square, as Pillow's `resize` does on the host.

    A crop is resized along one axis after the other, each time by a product with a matrix of weights: a gather of
    every pixel would be slow on a TPU. Between the two, values are rounded to uint8, as by Pillow.

    Args:
        windows: uint8 [B, H, W, 3]; each holds a crop in its upper left corner.
        size: int [B, 2], height and width of the crop in its window.
        upright: bool [B], whether the crop has to be transposed.
        mirrored: bool [B], whether the result is mirrored left to right.
        cubic: bool [B], whether to interpolate cubically instead of linearly.
        side: Height and width of the result.

    Returns:
        uint8 [B, side, side, 3].
    """
    height, width = windows.shape[1:3]
    # Left and right of an upright image are the top and bottom of its window.
    down = resizing_weights(size[:, 0], height, side, cubic, mirrored & upright)
    across = resizing_weights(size[:, 1], width, side, cubic, mirrored & ~upright)
    x = _rounded(_product("bhwc,bow->bhoc", windows, across))
    x = _rounded(_product("bhwc,boh->bowc", x, down))
    return jnp.where(upright[:, None, None, None], x.swapaxes(1, 2), x)


def resizing_weights(
    length: jax.Array, longest: int, side: int, cubic: jax.Array, mirrored: jax.Array
) -> jax.Array:
    """Returns the matrices that resize lines of `length` pixels to `side` pixels, as Pillow's `resize` does.

    The kernel is a triangle, or Keys' cubic with a = -1/2. It is as wide as a new pixel where the line shrinks, so
    that every old pixel counts, and weights beyond the ends are left out (libImaging/Resample.c).

    Args:
        length: int [B], at most `longest`.
        longest: Entries of a line, of which the first `length` count.
        side: Entries of the result.
        cubic: bool [B], whether the kernel is the cubic one.
        mirrored: bool [B], whether the result is reversed.

    Returns:
        float32 [B, side, longest].
    """
    length, cubic, mirrored = (array[:, None, None] for array in (length, cubic, mirrored))
    new, old = jnp.arange(side)[:, None], jnp.arange(longest)
    scale = length / side
    centre = (jnp.where(mirrored, side - 1 - new, new) + 0.5) * scale
    t = jnp.abs(old + 0.5 - centre) / jnp.maximum(scale, 1)
    near, far = (1.5 * t - 2.5) * t**2 + 1, ((-0.5 * t + 2.5) * t - 4) * t + 2
    weights = jnp.where(cubic, jnp.where(t < 1, near, jnp.where(t < 2, far, 0)), jnp.maximum(1 - t, 0))
    weights = jnp.where(old < length, weights, 0)
    return weights / weights.sum(-1, keepdims=True)


def _product(axes: str, values: jax.Array, weights: jax.Array) -> jax.Array:
    # Three bfloat16 products on a TPU; a single one would round the weights to 8 bits.
    return jnp.einsum(axes, values.astype(jnp.float32), weights, precision=jax.lax.Precision.HIGH)


def _rounded(x: jax.Array) -> jax.Array:
    return jnp.clip(x + 0.5, 0, 255).astype(jnp.uint8)
