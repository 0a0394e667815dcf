"""Bands: rows of an image as entries of the batch, the form of the first stages for few images on a TPU.

A TPU computes on 128 lanes, and XLA puts the batch there. With 128 images a chip no lane is wasted. With 8 images, as
in segmentation, XLA finds no good layout: the first blocks move 3.5 times the bytes of the same pixels in 128
images (`experiments.tpu_program`). So the images are cut into bands of rows, as many as fill the lanes:
[B, H, W, C] -> [B * bands, H / bands, W, C]. Whatever treats each pixel by itself does not notice. A convolution with
a window takes the rows that it needs from the neighbouring bands.

GPUs and CPUs have one band: the whole image.
"""

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

from seaformer_jax import mesh

LANES = 128
# Stride of the last banded feature map: after it there are few pixels, and bands would be too thin.
STRIDE = 8
_LEAST_ROWS = 2  # What the widest window, 5 rows, needs of a neighbour.
_BANDS_IN_LANES = Layout((1, 2, 3, 0))  # The axis that comes last lies in the lanes.


def count(images: jax.Array) -> int:
    """Returns the number of bands for images [B, H, W, 3], for the mesh that the program is compiled for.

    It is a power of 2 that divides the rows of every banded feature map; 1 if there is no mesh.
    """
    if mesh.platform() != "tpu":
        return 1
    return fitting(images.shape[0] // mesh.batch_devices(), images.shape[1])


def fitting(images: int, height: int) -> int:
    """Returns the largest number of bands for `images` images of `height` rows on a chip."""
    bands = 1
    while 2 * bands * images <= LANES and _divides(height, 2 * bands):
        bands *= 2
    return bands


def _divides(height: int, bands: int) -> bool:
    return height % (bands * STRIDE) == 0 and height // (bands * STRIDE) >= _LEAST_ROWS


def split(x: jax.Array, bands: int) -> jax.Array:
    """Cuts images into bands of rows: [B, H, W, C] -> [B * bands, H / bands, W, C]."""
    return x.reshape(len(x) * bands, -1, *x.shape[2:])


def join(x: jax.Array, bands: int) -> jax.Array:
    """Undoes `split`."""
    return x.reshape(len(x) // bands, -1, *x.shape[2:])


def with_neighbours(x: jax.Array, bands: int, above: int, below: int) -> jax.Array:
    """Adds rows of the neighbouring bands, or zeros at the edge of the image.

    The layout of the result is fixed if the bands fill more than half of the lanes, because XLA would choose two: 1x1
    convolutions with the columns in the lanes, and windows with the bands there. It would copy the largest feature
    maps from one to the other. With 32 images of 512 x 512 on a chip, these copies are one third of the bytes of the
    first blocks. With fewer bands the columns are better in the lanes: 8 images of 800 x 1344 on a chip have 4 bands
    each, and move half of the bytes without this layout.

    Args:
        x: Bands, [B * bands, rows, W, C].
        bands: Bands of an image.
        above, below: Numbers of rows to add, at most `rows`.
    Returns:
        [B * bands, above + rows + below, W, C].
    """
    last_rows, first_rows = x[:, x.shape[1] - above :], x[:, :below]
    from_above, from_below = _next_band(last_rows, bands, 1), _next_band(first_rows, bands, -1)
    joined = jnp.concatenate([from_above, x, from_below], axis=1)
    fill = len(x) // mesh.batch_devices() > LANES // 2
    return with_layout_constraint(joined, _BANDS_IN_LANES) if fill else joined


def _next_band(rows: jax.Array, bands: int, step: int) -> jax.Array:
    """Gives rows [B * bands, n, W, C] to the band `step` (1 or -1) further on; the one at the edge gets zeros.

    The bands of an image have an axis of their own meanwhile. A roll of the batch would leave the chip.
    """
    images = rows.reshape(len(rows) // bands, bands, *rows.shape[1:])
    kept, edge = (images[:, :-1], (1, 0)) if step == 1 else (images[:, 1:], (0, 1))
    return jnp.pad(kept, ((0, 0), edge, (0, 0), (0, 0), (0, 0))).reshape(rows.shape)
