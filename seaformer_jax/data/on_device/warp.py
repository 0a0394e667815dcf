"""RandAugment's geometric operations, for images of which each has its own operation and argument.

Each is three shears, whose slopes may be 0: along the rows, along the columns, along the rows. So every row, and
every column, moves as a whole. A shear or translation is exactly Pillow's. A rotation is the product of three
shears (Paeth 1986, "A fast algorithm for general raster rotation"); Pillow samples it in one go, so that the two
differ where the image has details of a pixel's size.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from seaformer_jax.data.classification.randaugment import OPS

_INDEX = {name: index for index, name in enumerate(OPS)}
_ROTATE = _INDEX["Rotate"]
WARPS = tuple(_INDEX[name] for name in ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"))
_REACH = 4  # Pixels beyond the edge that filters read in three shears of slopes of at most 1.


class Line(NamedTuple):
    """A shift that grows with the position, float32 [B] each: `slope * position + offset` pixels."""

    slope: jax.Array
    offset: jax.Array

    def at(self, position: jax.Array) -> jax.Array:
        """Returns the shifts [B, ...] at positions that broadcast to that shape."""
        rank = (-1, *[1] * (position.ndim - 1))
        return self.slope.reshape(rank) * position + self.offset.reshape(rank)


def warp(
    images: jax.Array,
    op: jax.Array,
    argument: jax.Array,
    cubic: jax.Array,
    *,
    fill: Sequence[int],
    max_degrees: float,
) -> jax.Array:
    """Applies each image's geometric operation.

    Args:
        images: uint8 [B, H, W, 3].
        op: int [B], one of `WARPS`.
        argument: float32 [B]: degrees of a rotation, slope of a shear, or share of the side of a translation.
        cubic: bool [B], whether to interpolate cubically instead of linearly.
        fill: Colour outside the image, RGB, 0..255.
        max_degrees: Largest angle of rotation, below 180.

    Returns:
        uint8 [B, H, W, 3].
    """
    height, width = images.shape[1:3]
    first, second, third = _shears(op, argument, height, width)
    # 1. Between the shears of a rotation, pixels that come back lie beyond the left and right edge.
    margin = math.ceil(height / 2 * math.tan(math.radians(max_degrees / 2))) + _REACH
    rows = jnp.arange(height)[None, :, None, None] + 0.5
    columns = jnp.arange(-margin, width + margin)[None, None, :, None] + 0.5
    # 2. The shears. Interpolating three times blurs, so the first one of a rotation is always cubic. Pillow rounds
    #    down at the end; the first two shears of a rotation round to the nearest.
    cubic, nearest = cubic[:, None, None, None], jnp.where(op == _ROTATE, 0.5, 0)[:, None, None, None]
    x = jnp.pad(images, ((0, 0), (_REACH, _REACH), (margin, margin), (0, 0)), mode="edge")
    edges = jnp.arange(-_REACH, height + _REACH).clip(0, height - 1)
    x = _shift(x, first.at(rows[:, edges]), 2, jnp.bool(True), nearest)
    x = _shift(x, second.at(columns), 1, cubic, nearest)[:, _REACH:-_REACH]
    x = _shift(x, third.at(rows), 2, cubic, 0)[:, :, margin:-margin]
    # 3. Where a pixel comes from: the shears in reverse order. Outside the image is the fill colour.
    u = columns[:, :, margin:-margin] + third.at(rows)
    v = rows + second.at(u)
    u = u + first.at(v)
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    return jnp.where(inside, x, jnp.array(fill, jnp.uint8))


def _shears(op: jax.Array, argument: jax.Array, height: int, width: int) -> tuple[Line, Line, Line]:
    """Returns the shifts by the row, by the column and by the row again, at the centres of the pixels."""

    def of(name: str, value: jax.Array) -> jax.Array:
        return jnp.where(op == _INDEX[name], value, 0.0)

    angle = of("Rotate", jnp.radians(argument))
    tangent, sine = -jnp.tan(angle / 2), jnp.sin(angle)
    # A rotation is about the centre, a shear about the corner.
    return (
        Line(tangent, -tangent * height / 2),
        Line(sine + of("ShearY", argument), -sine * width / 2 + of("TranslateYRel", argument * height)),
        Line(tangent + of("ShearX", argument), -tangent * height / 2 + of("TranslateXRel", argument * width)),
    )


def _shift(
    images: jax.Array, amount: jax.Array, axis: int, cubic: jax.Array, rounding: jax.Array | float
) -> jax.Array:
    """Samples every line along an axis `amount` pixels further on; what leaves at one end comes in at the other.

    Args:
        images: uint8 [B, H, W, C].
        amount: float32, 1 along `axis` and along the channels.
        axis: 1 or 2.
        cubic: bool, [B, 1, 1, 1] or a scalar.
        rounding: What is added before rounding down, [B, 1, 1, 1] or a scalar.

    Returns:
        uint8 [B, H, W, C].
    """
    whole = jnp.floor(amount)
    part = amount - whole
    # 1. Whole pixels, and one less, because the filter begins one pixel before.
    moved = roll(images, whole.astype(jnp.int32) - 1, axis).astype(jnp.float32)
    # 2. The rest: all pixels of a line have the same weights.
    weights = zip(_cubic(part), (0.0, 1 - part, part, 0.0), strict=True)
    taps = (jnp.where(cubic, *pair) * jnp.roll(moved, -offset, axis) for offset, pair in enumerate(weights))
    # A thousandth more, so that rounding errors do not lower whole values.
    return jnp.clip(sum(taps) + (rounding + 1e-3), 0, 255).astype(jnp.uint8)


def _cubic(t: jax.Array) -> tuple[jax.Array, ...]:
    """Returns the weights of the pixels at -1, 0, 1 and 2 for a position t in [0, 1).

    They are those of Pillow's `transform` (`BICUBIC` in libImaging/Geometry.c): Keys' kernel with a = -1, although
    its `resize` has a = -1/2.
    """
    return (((2 - t) * t - 1) * t, (t - 2) * t**2 + 1, ((1 - t) * t + 1) * t, (t - 1) * t**2)


def roll(images: jax.Array, shift: jax.Array, axis: int) -> jax.Array:
    """Returns images whose entry i along the axis is entry (i + shift) mod n of `images`.

    Args:
        images: [B, H, W, C].
        shift: int32 that broadcasts to `images` and is 1 along the axis.
        axis: Axis of the shift.
    """
    tpu, default = (functools.partial(form, axis=axis) for form in (roll_by_selecting, roll_by_gathering))
    return jax.lax.platform_dependent(images, shift, tpu=tpu, default=default)


def roll_by_gathering(images: jax.Array, shift: jax.Array, axis: int) -> jax.Array:
    """Returns the result of `roll`."""
    shape = [-1 if i == axis else 1 for i in range(images.ndim)]
    length = images.shape[axis]
    return jnp.take_along_axis(images, (jnp.arange(length).reshape(shape) + shift) % length, axis)


def roll_by_selecting(images: jax.Array, shift: jax.Array, axis: int) -> jax.Array:
    """Returns the result of `roll`, without a gather, which is slow on a TPU.

    A shift is a number of two digits. For each digit, all constant shifts are computed in one pass over the images,
    and every line takes its own.
    """
    length = images.shape[axis]
    radix = math.isqrt(length - 1) + 1
    for unit, digit in ((radix, shift % length // radix), (1, shift % length % radix)):
        shifted = [jnp.roll(images, -unit * value, axis) for value in range(radix)]
        images = jax.lax.select_n(jnp.broadcast_to(digit, images.shape), *shifted)
    return images
