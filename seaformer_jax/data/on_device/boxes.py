"""Pixels inside boxes."""

import jax
import jax.numpy as jnp


def inside(box: jax.Array, height: int, width: int) -> jax.Array:
    """bool [height, width]: the pixels of a box (top, left, bottom, right)."""
    top, left, bottom, right = box
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)
    return (top <= rows) & (rows < bottom) & (left <= columns) & (columns < right)
