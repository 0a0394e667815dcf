"""Resizing as PyTorch's `interpolate(mode="linear" | "bilinear", align_corners=False)` does it."""

import functools

import jax


@functools.partial(jax.jit, static_argnames=("shape",))
def resize_linear(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Resizes every axis of `x` whose length differs from `shape`, linearly, with half-pixel centres.

    `jax.image.resize` smooths when it shrinks unless told not to; PyTorch does not, and the position tables
    of the official models shrink (16 entries to 7 or 4 at 224 pixels). Jitted under its own name so that
    `seaformer_jax.models.macs` can tell interpolation from the products of the network.

    Args:
      x: array of any rank, float.
      shape: the wanted shape, of the same rank.
    """
    if x.shape == shape:
        return x
    return jax.image.resize(x, shape, "linear", antialias=False, precision=jax.lax.Precision.HIGHEST)
