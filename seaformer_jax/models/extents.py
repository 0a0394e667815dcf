"""The extent of a feature map: which of its positions belong to the image, and which to padding.

Images of different sizes share a batch if they are padded below and on the right. A SeaFormer notices such padding
in four places: where a window of a convolution reaches over the edge, where attention averages over rows and columns
and compares their tokens, where a table or a map is interpolated to the length of another, and where a map is pooled.
These places ask the extent of their map. Everything else treats each position by itself and needs no extent.

There are two extents. `WHOLE` is that of maps without padding; its methods are the plain operations. `Part` is that
of padded maps; its methods give at every position of an image what the map of that image alone would have there. The
values on padding are finite, and otherwise meaningless until `clear` makes them 0.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from seaformer_jax.errors import UserError
from seaformer_jax.models import bands as bands_of_rows
from seaformer_jax.resize import linear_matrix, resize_linear


class WholeLine:
    """An axis whose positions all belong to the image; the methods are those of `Line`."""

    def mean(self, x: jax.Array, axis: int) -> jax.Array:
        return x.mean(axis)

    def softmax(self, scores: jax.Array, axis: int) -> jax.Array:
        return jax.nn.softmax(scores, axis)

    def stretch(self, table: jax.Array, length: int) -> jax.Array:
        return resize_linear(table, (length, table.shape[1]))


class Line:
    """An axis of length N of which the first positions belong to the image.

    Args:
        counts: Number of these positions for each image, int [B], at least 1.
        length: N.
    """

    def __init__(self, counts: jax.Array, length: int):
        self.counts, self.length = counts, length
        self.inside = jnp.arange(length) < counts[:, None]  # [B, N]

    def mean(self, x: jax.Array, axis: int) -> jax.Array:
        """Returns the mean of x [B, ...] over this axis, which is number `axis` of x, in the dtype of x."""
        sums = jnp.where(self._along(x, axis), x, 0).sum(axis, dtype=jnp.float32)
        return (sums / self.counts.reshape(-1, *[1] * (sums.ndim - 1))).astype(x.dtype)

    def softmax(self, scores: jax.Array, axis: int) -> jax.Array:
        """Returns the softmax of scores [B, ...] over this axis, which is number `axis` of scores; 0 on padding."""
        return jax.nn.softmax(jnp.where(self._along(scores, axis), scores, -jnp.inf), axis)

    def stretch(self, table: jax.Array, length: int) -> jax.Array:
        """Interpolates a table [K, C] linearly to the positions of each image, [B, length = N, C]."""
        matrix = linear_matrix(len(table), self.counts, length, len(table))
        return jnp.einsum("bnk,kc->bnc", matrix, table, precision=jax.lax.Precision.HIGHEST)

    def to(self, other: "Line") -> jax.Array:
        """Returns the matrices that resize linearly from this axis to `other`, float32 [B, other's N, N]."""
        return linear_matrix(self.counts, other.counts, other.length, self.length)

    def _along(self, x: jax.Array, axis: int) -> jax.Array:
        shape = [len(x), *[1] * (x.ndim - 1)]
        shape[axis] = self.length
        return self.inside.reshape(shape)


class Whole:
    """The extent of maps without padding; the methods are those of `Part`."""

    rows = columns = WholeLine()

    def __init__(self, bands: int = 1):
        self.bands = bands

    def strided(self, stride: int) -> "Whole":
        return self

    def mapped(self, size: Callable[[int], int]) -> "Whole":
        return self

    def joined(self) -> "Whole":
        return WHOLE

    def clear(self, x: jax.Array) -> jax.Array:
        return x

    def mean(self, x: jax.Array) -> jax.Array:
        return x.mean((1, 2))

    def resize(self, x: jax.Array, shape: tuple[int, ...], to: "Whole") -> jax.Array:
        return resize_linear(x, shape)


WHOLE = Whole()


class Part:
    """The extent of maps [B, H, W, C] that hold an image in their upper left corner.

    Args:
        sizes: Height and width of that corner for each image, int [B, 2], at least 1.
        shape: H and W.
        bands: Number of bands of rows that the maps come in, see `bands`.

    Attributes:
        rows, columns: The two axes.
        bands: As above.
    """

    def __init__(self, sizes: jax.Array, shape: tuple[int, int], bands: int = 1):
        self.sizes, self.shape, self.bands = sizes, shape, bands
        self.rows, self.columns = Line(sizes[:, 0], shape[0]), Line(sizes[:, 1], shape[1])
        inside = (self.rows.inside[:, :, None] & self.columns.inside[:, None])[..., None]
        self._inside = bands_of_rows.split(inside, bands)  # [B * bands, H / bands, W, 1]

    def strided(self, stride: int) -> "Part":
        """Returns the extent after a convolution of this stride, which rounds sizes up."""
        shape = tuple(-(-side // stride) for side in self.shape)
        return self if stride == 1 else Part(-(-self.sizes // stride), shape, self.bands)

    def mapped(self, size: Callable[[int], int]) -> "Part":
        """Returns the extent of maps with `size(n)` positions where these have n."""
        return Part(mapped_sizes(self.sizes, size, max(self.shape)), tuple(map(size, self.shape)))

    def joined(self) -> "Part":
        """Returns the extent of the same maps as whole images instead of bands."""
        return self if self.bands == 1 else Part(self.sizes, self.shape)

    def clear(self, x: jax.Array) -> jax.Array:
        """Sets x [B, H, W, C] to 0 on padding: what a window that reaches over the edge has to find there."""
        return jnp.where(self._inside, x, 0)

    def mean(self, x: jax.Array) -> jax.Array:
        """Returns the mean over the positions of each image, [B, C]."""
        return self.rows.mean(self.columns.mean(x, 2), 1)

    def resize(self, x: jax.Array, shape: tuple[int, ...], to: "Part") -> jax.Array:
        """Resizes x [B, H, W, C] linearly to `shape`, the shape of maps with the extent `to`."""
        # Columns first: the map is smaller then, and the product over rows needs no transposition.
        for equation, line, target in (
            ("bnw,bhwc->bhnc", self.columns, to.columns),
            ("bnh,bhwc->bnwc", self.rows, to.rows),
        ):
            matrix = line.to(target).astype(x.dtype)
            x = jnp.einsum(equation, matrix, x, precision=jax.lax.Precision.HIGHEST)
        return x


Extent = Whole | Part


def of(images: jax.Array, sizes: jax.Array | None, bands: int = 1) -> Extent:
    """Returns the extent of images [B, H, W, 3].

    Args:
        images: The images, not yet in bands.
        sizes: Their heights and widths without padding, int [B, 2], from 1 to H and W; None if there is no padding.
        bands: Number of bands that they are cut into.
    """
    if sizes is None:
        return Whole(bands)
    shape = images.shape[1:3]
    # A size of 0, that of an entry which only fills a batch, would give NaN.
    return Part(jnp.clip(sizes, 1, jnp.array(shape)), shape, bands)


def mapped_sizes(sizes: jax.Array, size: Callable[[int], int], largest: int) -> jax.Array:
    """Returns `size(n)` for every n of an int array with values from 0 to `largest`."""
    return jnp.array([size(n) for n in range(largest + 1)])[sizes]


def not_taken() -> UserError:
    """Returns the error of a backbone that gets `sizes`, although its attention does not know of padding."""
    return UserError("images with padding need SEA attention; leave out sizes, or choose model.attention=sea")
