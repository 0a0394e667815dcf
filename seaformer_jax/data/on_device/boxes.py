"""The pixels inside a box, which CutMix and random erasing need."""

import jax
import jax.numpy as jnp


def inside(box: jax.Array, height: int, width: int) -> jax.Array:
    """Returns a mask bool [height, width] that is True inside a box.

    Args:
        box: [4]: top, left, bottom, right in pixels, the last two exclusive.
        height: Height of the mask in pixels.
        width: Width of the mask in pixels.
    """
    top, left, bottom, right = box
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)
    return (top <= rows) & (rows < bottom) & (left <= columns) & (columns < right)
