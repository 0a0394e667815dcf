"""Resizing as PyTorch's `interpolate(mode="linear" | "bilinear", align_corners=False)` does it."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


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


class Taps(NamedTuple):
    """A linear map along one axis: output i is the sum over k of weight[i, k] * input[index[i, k]]."""

    index: jax.Array | np.ndarray  # int [out, k]
    weight: jax.Array | np.ndarray  # float32 [out, k]


def linear_taps(size: int, new_size: int | jax.Array, length: int) -> Taps:
    """The two taps per output of linear resizing from `size` to `new_size`, as `resize_linear` does it.

    Args:
        size: entries of the input.
        new_size: entries of the output; may be traced.
        length: rows of the result, at least `new_size`; those beyond it repeat the input's last entry.
    """
    position = jnp.clip((jnp.arange(length) + 0.5) * (size / new_size) - 0.5, 0, size - 1)
    low = jnp.floor(position).astype(jnp.int32)
    part = position - low
    return Taps(jnp.stack([low, jnp.minimum(low + 1, size - 1)], 1), jnp.stack([1 - part, part], 1))


def then(first: Taps, second: Taps) -> Taps:
    """The map `first`, and `second` on its output, as one: every output has the product of both numbers of taps."""
    index, weight = jnp.asarray(first.index)[second.index], jnp.asarray(first.weight)[second.index]
    rows = len(second.index)
    return Taps(index.reshape(rows, -1), (weight * second.weight[..., None]).reshape(rows, -1))


def apply_taps(taps: Taps, x: jax.Array, axis: int) -> jax.Array:
    """Applies the map along one axis of `x`, float32."""
    shape = [1] * x.ndim
    shape[axis] = -1
    terms = zip(taps.index.T, taps.weight.T, strict=True)
    return sum(jnp.take(x, index, axis, mode="clip") * weight.reshape(shape) for index, weight in terms)
