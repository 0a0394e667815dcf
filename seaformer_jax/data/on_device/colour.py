"""RandAugment's operations on colours, for a batch in which each image has its own operation and argument.

They equal Pillow's `ImageOps` and `ImageEnhance` on uint8 images, as `classification/randaugment.py` calls them.
"""

import jax
import jax.numpy as jnp

from seaformer_jax.data.classification.randaugment import OPS

_LUMA = (19595, 38470, 7471)  # ITU-R 601 in 16-bit fixed point, as Pillow's conversion to grey.
_INDEX = {name: index for index, name in enumerate(OPS)}


def recolour(images: jax.Array, op: jax.Array, argument: jax.Array) -> jax.Array:
    """Applies each image's operation if it is one on colours, except "Equalize" and "Sharpness".

    These two need more than the values of a pixel, and have functions of their own.

    All operations are computed for all images, as arithmetic on the values: that is one pass over the images, after
    one that finds their extremes and means. Tables of values, as Pillow has, would be a gather for every value.

    Args:
        images: uint8 [B, H, W, 3].
        op: int [B], index in `OPS`; any other number for no operation.
        argument: float32 [B].

    Returns:
        uint8 [B, H, W, 3].
    """
    x = images.astype(jnp.int32)
    op, argument = op[:, None, None, None], argument[:, None, None, None]
    whole = argument.astype(jnp.int32)
    # 1. Operations on single values. Inverting is solarizing from 0 on.
    y = jnp.where(
        (op == _INDEX["Invert"]) | (op == _INDEX["Solarize"]) & (x >= whole),
        255 - x,
        jnp.where((op == _INDEX["SolarizeAdd"]) & (x < 128), jnp.minimum(x + whole, 255), x),
    )
    dropped = jnp.where(op == _INDEX["Posterize"], jnp.maximum(8 - whole, 0), 0)
    y = (y >> dropped) << dropped
    y = jnp.where(op == _INDEX["AutoContrast"], _autocontrast(x), y)
    # 2. Enhancements, which go from a degenerate image through the image and beyond.
    luma = sum(weight * x[..., i : i + 1] for i, weight in enumerate(_LUMA)) + 0x8000 >> 16
    mean = jnp.floor(jnp.mean(luma, (1, 2, 3), keepdims=True, dtype=jnp.float32) + 0.5).astype(jnp.int32)
    degenerates = {"Color": luma, "Contrast": mean, "Brightness": 0}
    for name, degenerate in degenerates.items():
        y = jnp.where(op == _INDEX[name], _blend(degenerate, x, argument), y)
    return y.astype(jnp.uint8)


def _autocontrast(x: jax.Array) -> jax.Array:
    """Stretches each channel of each image to 0..255; a channel of one value keeps it."""
    low, high = x.min((1, 2), keepdims=True), x.max((1, 2), keepdims=True)
    # 255 (x - low) / (high - low) is whole or at least 1/255 away from a whole number. A thousandth more is therefore
    # rounded down to the exact quotient, whatever the rounding errors.
    stretched = ((x - low) * (255 / jnp.maximum(high - low, 1)) + 1e-3).astype(jnp.int32)
    return jnp.where(high > low, stretched, x)


def sharpen(images: jax.Array, factor: jax.Array) -> jax.Array:
    """Applies "Sharpness": goes from the smoothed image through the image and beyond.

    Args:
        images: uint8 [B, H, W, C].
        factor: float32 [B]; 0 gives the smoothed image, 1 the image.

    Returns:
        uint8 [B, H, W, C].
    """
    x = images.astype(jnp.int32)
    return _blend(_smooth(x), x, factor[:, None, None, None]).astype(jnp.uint8)


def _smooth(x: jax.Array) -> jax.Array:
    """Returns Pillow's `SMOOTH`: the mean of 3 x 3 pixels in which the middle one counts five times, of 13.

    The border is not smoothed.
    """
    across = x + jnp.roll(x, 1, 2) + jnp.roll(x, -1, 2)
    total = across + jnp.roll(across, 1, 1) + jnp.roll(across, -1, 1) + 4 * x
    (_, height, width, _), (rows, columns) = x.shape, (jnp.arange(n)[:, None, None] for n in x.shape[1:3])
    border = (rows % (height - 1) == 0) | (columns % (width - 1) == 0).swapaxes(0, 1)
    return jnp.where(border, x, (2 * total + 13) // 26)


def _blend(degenerate: jax.Array | int, x: jax.Array, factor: jax.Array) -> jax.Array:
    return jnp.clip(degenerate + factor * (x - degenerate), 0, 255).astype(jnp.int32)


def equalize(images: jax.Array) -> jax.Array:
    """Equalizes the histogram of each channel of each image; uint8 [B, H, W, C] to the same.

    `new = (below + step // 2) // step` for `below` values that are smaller, where `step` is a 255th of the number of
    values that are smaller than the largest one.
    """
    batch, height, width, channels = images.shape
    values = images.transpose(0, 3, 1, 2).reshape(-1, height * width).astype(jnp.int32)
    equal = jax.vmap(_equalize)(values).reshape(batch, channels, height, width)
    return equal.transpose(0, 2, 3, 1).astype(jnp.uint8)


def _equalize(values: jax.Array) -> jax.Array:
    """Equalizes the values int32 [pixels] of one channel."""
    below = jax.lax.platform_dependent(values, tpu=below_by_comparing, default=below_by_counting)
    step = below[values.max()] // 255
    table = jnp.minimum((below + step // 2) // jnp.maximum(step, 1), 255)
    table = jnp.where(step > 0, table, jnp.arange(256))
    return jax.lax.platform_dependent(values, table, tpu=look_up_by_comparing, default=look_up)


# On a TPU, a scatter or gather for every pixel is a sequence of single accesses; 256 comparisons are done in vectors.


def below_by_counting(values: jax.Array) -> jax.Array:
    """Returns how many values are smaller than 0, ..., 255: int32 [256]."""
    counts = jnp.zeros(256, jnp.int32).at[values].add(1)
    return jnp.cumsum(counts) - counts


def below_by_comparing(values: jax.Array) -> jax.Array:
    """Returns the result of `below_by_counting`."""
    return jnp.sum(values[:, None] < jnp.arange(256), axis=0, dtype=jnp.int32)


def look_up(values: jax.Array, table: jax.Array) -> jax.Array:
    """Returns the entries of a table [256] at values in 0..255."""
    return table[values]


def look_up_by_comparing(values: jax.Array, table: jax.Array) -> jax.Array:
    """Returns the result of `look_up`: the sum of the table's rises up to the value."""
    rises = jnp.diff(table, prepend=0)
    return jnp.sum(jnp.where(values[:, None] >= jnp.arange(256), rises, 0), axis=1)
