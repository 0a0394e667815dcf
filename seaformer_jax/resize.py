"""Linear resizing as in PyTorch's `interpolate(mode="linear" | "bilinear", align_corners=False)`."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


@functools.partial(jax.jit, static_argnames=("shape",))
def resize_linear(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Resizes every axis of `x` whose length differs from `shape`, linearly, with half-pixel centres.

    By default `jax.image.resize` smooths (antialiases) when it shrinks. PyTorch does not, and the position tables of
    the official models shrink (16 entries to 7 or 4 at 224 pixels), so smoothing is off here. The function is jitted
    so that `seaformer_jax.models.macs` can distinguish interpolation from the products of the network by its name.

    Args:
        x: Float array of any rank.
        shape: Shape of the result, of the same rank.
    """
    if x.shape == shape:
        return x
    return jax.image.resize(x, shape, "linear", antialias=False, precision=jax.lax.Precision.HIGHEST)


class Taps(NamedTuple):
    """A linear map along one axis: output i is the sum over k of weight[i, k] * input[index[i, k]].

    Attributes:
        index: Input entries that each output reads, int [outputs, k].
        weight: Their weights, float32 [outputs, k].
    """

    index: jax.Array | np.ndarray
    weight: jax.Array | np.ndarray


def linear_taps(size: int | jax.Array, new_size: int | jax.Array, length: int) -> Taps:
    """Returns the map that resizes linearly from `size` to `new_size`, as `resize_linear` does: two taps per output.

    Args:
        size: Number of input entries; may be a traced value, as may `new_size`.
        new_size: Number of output entries.
        length: Number of rows of the result, at least `new_size`. It must be known when tracing. The rows beyond
            `new_size` repeat the last entry of the input.
    """
    position = _positions(size, new_size, length)
    low = jnp.floor(position).astype(jnp.int32)
    part = position - low
    return Taps(jnp.stack([low, jnp.minimum(low + 1, size - 1)], 1), jnp.stack([1 - part, part], 1))


def linear_matrix(size: int | jax.Array, new_size: int | jax.Array, length: int, inputs: int) -> jax.Array:
    """Returns the matrices of the map of `linear_taps` for sizes that differ between the images of a batch.

    Args:
        size: Number of input entries; may be int [B].
        new_size: Number of output entries; may be int [B].
        length: Number of rows of the result, at least `new_size`, as in `linear_taps`.
        inputs: Number of columns of the result, at least `size`; those beyond `size` are 0.
    Returns:
        float32 [B, length, inputs].
    """
    sizes = (jnp.reshape(s, (-1, 1)) for s in (size, new_size))
    distance = _positions(*sizes, length)[..., None] - jnp.arange(inputs)
    return jnp.maximum(1 - jnp.abs(distance), 0)


def _positions(size: int | jax.Array, new_size: int | jax.Array, length: int) -> jax.Array:
    """Returns the position of each output's centre among the input entries, float32 [..., length].

    That is (i + 1/2) * size / new_size - 1/2. It is written with integers and a single division, so that it does not
    depend on whether the sizes are known when tracing. Clipping repeats the entries at the ends.
    """
    numerator = (2 * jnp.arange(length) + 1) * size - new_size
    return jnp.clip(numerator / (2 * new_size), 0, size - 1)


def then(first: Taps, second: Taps) -> Taps:
    """Returns the map that applies `first`, then `second`; its taps per output are the product of both numbers."""
    # For every tap of `second`, the taps of `first` at the entry that it reads: [outputs, k2, k1].
    index, weight = jnp.asarray(first.index)[second.index], jnp.asarray(first.weight)[second.index]
    rows = len(second.index)
    return Taps(index.reshape(rows, -1), (weight * second.weight[..., None]).reshape(rows, -1))


def apply_taps(taps: Taps, x: jax.Array, axis: int) -> jax.Array:
    """Applies the map along one axis of the float32 array `x`."""
    shape = [1] * x.ndim
    shape[axis] = -1
    # One gather per tap: no matrix of all inputs and outputs is needed.
    terms = zip(taps.index.T, taps.weight.T, strict=True)
    return sum(jnp.take(x, index, axis, mode="clip") * weight.reshape(shape) for index, weight in terms)
