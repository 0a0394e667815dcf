"""Predicts the class of every pixel of an image from logits at 1/8 of its size.

Supports sliding windows, several image scales and mirrored images. Follows
`mmseg/models/segmentors/encoder_decoder.py`, which resizes the logits twice: first to the size of the model's input,
then to the size of the label. Both steps are linear, and so is averaging overlapping windows. Together they are one
linear map along the rows and one along the columns, so no intermediate result is ever computed at full resolution.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from seaformer_jax.resize import Taps, apply_taps, linear_taps, then

_BAND = 8  # Rows of pixels whose logits exist at a time; few enough for a CPU's cache.

# Padded images [B, h, w, 3] and their sizes int [B, 2] -> logits [B, ceil(h/8), ceil(w/8), C] and theirs.
Model = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


class View(NamedTuple):
    """Logits of one scaled or mirrored view of every image, and the linear maps to logits of the view's pixels.

    The maps have a row for every pixel of the padded view.
    """

    logits: jax.Array  # [B, h, w, C]
    sizes: jax.Array  # Height and width of the view without padding, [B, 2].
    rows: Taps  # h -> height of the view, [B, ...]
    columns: Taps  # w -> width of the view, [B, ...]


def predict(
    model: Model,
    images: Sequence[jax.Array],
    image_sizes: Sequence[jax.Array],
    sizes: jax.Array,
    shape: tuple[int, int],
    config: Mapping[str, Any],
) -> jax.Array:
    """Returns the class of every pixel, int32 [B, *shape]. Values beyond an image's own size are meaningless.

    With several views, the class probabilities are averaged, as in mmseg's `aug_test`. Ties go to the lowest class
    id. A pixel whose scores are NaN gets the number of classes.

    Args:
        model: Returns the logits of one entry of `images`, or of windows of it.
        images: One array [B, h, w, 3] per entry of `eval.scales`, normalised; padded below and on the right.
        image_sizes: Height and width of each of them without its padding, one int [B, 2] per entry of `images`.
        sizes: Height and width of the label of each image, int [B, 2], at most `shape`.
        shape: Height and width of the result; the height is a multiple of 8.
        config: `config.eval` with `mode`, `slide_crop`, `slide_stride` and `flip`.
    """
    # 1. Logits of every view: each scale, then each scale mirrored. Entries that only fill the batch have size 0.
    make_view = functools.partial(_slide, config=config) if config["mode"] == "slide" else _whole
    inputs = [(x, jnp.maximum(n, 1)) for x, n in zip(images, image_sizes, strict=True)]
    views = [make_view(model, *one) for one in inputs]
    if config["flip"]:
        views += [_mirror(make_view(model, _mirrored(*one), one[1])) for one in inputs]
    # 2. Classes, image by image, so that the logits of a band stay in the cache.
    return jax.lax.map(lambda one: _classes(*one, shape), (views, jnp.maximum(sizes, 1)))


def _whole(model: Model, images: jax.Array, sizes: jax.Array) -> View:
    """Runs the model on whole images [B, H, W, 3] of sizes [B, 2]."""
    logits, cells = model(images, sizes)
    rows, columns = (
        jax.vmap(functools.partial(linear_taps, length=images.shape[1 + k]))(cells[:, k], sizes[:, k])
        for k in (0, 1)
    )
    return View(logits, sizes, rows, columns)


def _slide(model: Model, images: jax.Array, sizes: jax.Array, config: Mapping[str, Any]) -> View:
    """Runs the model on windows of images [B, H, W, 3] of sizes [B, 2]; overlapping windows are averaged.

    The last window of each row and column is moved inwards so that it ends at the border of the image.
    """
    # An axis shorter than the window has a single, shorter one.
    axes = [
        _Windows(*of_axis)
        for of_axis in zip(
            sizes.T, images.shape[1:3], config["slide_crop"], config["slide_stride"], strict=True
        )
    ]
    rows, columns = axes
    window_sizes = jnp.stack([axis.lengths for axis in axes], 1)

    def run(index: jax.Array) -> tuple[jax.Array, jax.Array]:
        corners = rows.starts[:, index // columns.count], columns.starts[:, index % columns.count]
        windows = jax.vmap(
            lambda x, *corner: jax.lax.dynamic_slice(x, (*corner, 0), (rows.crop, columns.crop, 3))
        )
        return model(windows(images, *corners), window_sizes)

    logits, cells = jax.lax.map(run, jnp.arange(rows.count * columns.count))
    # The windows' logits are laid side by side in one map, so that the taps below can address any of them.
    *_, batch, h, w, classes = logits.shape
    grid = logits.reshape(rows.count, columns.count, batch, h, w, classes).transpose(2, 0, 3, 1, 4, 5)
    side_by_side = grid.reshape(batch, rows.count * h, columns.count * w, classes)
    return View(side_by_side, sizes, rows.taps(cells[0, :, 0], h), columns.taps(cells[0, :, 1], w))


class _Windows:
    """The windows along one axis of a batch of images.

    Args:
        sizes: Pixels of each image, int [B].
        length: Pixels of the padded images.
        crop: Pixels of a window.
        stride: Pixels from one window to the next.

    Attributes:
        count: Number of windows of the padded images; a smaller image has fewer, the others repeat its last one.
        crop: Pixels of a window, at most `length`.
        starts: First pixel of every window, int [B, count].
        lengths: Pixels of a window that belong to the image, int [B].
    """

    def __init__(self, sizes: jax.Array, length: int, crop: int, stride: int):
        self._sizes, self._length, self._stride = sizes, length, stride
        self.crop = min(crop, length)
        self.count = -(-(length - self.crop) // stride) + 1
        last = jnp.maximum(sizes - self.crop, 0)[:, None]
        self.starts = jnp.minimum(jnp.arange(self.count) * stride, last)
        self.lengths = jnp.minimum(sizes, self.crop)
        # The first window at the border is the last one of the image.
        self._own = jnp.arange(self.count) <= -(-last // stride)

    def taps(self, cells: jax.Array, laid: int) -> Taps:
        """Returns the maps from the windows' logits to the logits of the pixels, [B, ...].

        Args:
            cells: Logits of a window that belong to the image, int [B].
            laid: Logits of a window; those of all windows lie side by side.
        """
        return jax.vmap(functools.partial(self._taps, laid=laid))(self.starts, self._own, self.lengths, cells)

    def _taps(
        self, starts: jax.Array, own: jax.Array, length: jax.Array, cells: jax.Array, laid: int
    ) -> Taps:
        pixel = jnp.arange(self._length)[:, None]
        covers = (starts <= pixel) & (pixel < starts + length) & own  # [pixels, windows]
        count = jnp.maximum(covers.sum(1), 1)
        # The windows that cover a pixel come first. All pixels get as many as the most covered one can have, because
        # taps need a fixed number per output; the surplus ones have weight 0. The last window adds one.
        most = min(self.count, -(-self.crop // self._stride) + 1)
        window = jnp.argsort(~covers, axis=1, stable=True)[:, :most]
        covers = jnp.take_along_axis(covers, window, 1)
        # Within a window the logits are resized linearly; the windows of a pixel count equally.
        taps = linear_taps(cells, length, self.crop)
        inside = jnp.where(covers, pixel - starts[window], 0)
        index = window[..., None] * laid + taps.index[inside]
        weight = taps.weight[inside] * (covers / count[:, None])[..., None]
        return Taps(index.reshape(self._length, -1), weight.reshape(self._length, -1))


def _mirrored(images: jax.Array, sizes: jax.Array) -> jax.Array:
    """Mirrors images [B, H, W, 3] of sizes [B, 2]; the padding stays on the right."""
    return jax.vmap(lambda x, n: x[:, _backwards(n, x.shape[1])])(images, sizes[:, 1])


def _mirror(view: View) -> View:
    """Mirrors the view of a mirrored image back."""
    turn = jax.vmap(lambda table, n: table[_backwards(n, len(table))])
    return view._replace(columns=jax.tree.map(lambda table: turn(table, view.sizes[:, 1]), view.columns))


def _backwards(size: jax.Array, length: int) -> jax.Array:
    """Returns size - 1, ..., 0 and then zeros, int [length]."""
    return jnp.maximum(size - 1 - jnp.arange(length), 0)


def _classes(views: Sequence[View], size: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Returns the classes of one image, int32 [*shape], from its views and the size of its label, int [2]."""

    def to_label(taps: Taps, view: View, axis: int) -> Taps:
        return then(taps, linear_taps(view.sizes[axis], size[axis], shape[axis]))

    bands = [jax.tree.map(_in_bands, to_label(view.rows, view, 0)) for view in views]
    columns = [to_label(view.columns, view, 1) for view in views]

    def classes_of_band(rows: Sequence[Taps]) -> jax.Array:
        scores = [
            apply_taps(columns[k], apply_taps(rows[k], view.logits, 0), 1) for k, view in enumerate(views)
        ]
        # A single view needs no softmax: it does not change which class is the largest.
        return _first_largest(sum(map(jax.nn.softmax, scores)) if len(views) > 1 else scores[0])

    # Band by band, so that the logits of all pixels never exist at once.
    return jax.lax.map(classes_of_band, bands).reshape(shape)


def _in_bands(table: jax.Array) -> jax.Array:
    """[H, k] -> [H / 8, 8, k]."""
    return table.reshape(-1, _BAND, *table.shape[1:])


def _first_largest(scores: jax.Array) -> jax.Array:
    """Returns the argmax of scores [..., C], int32 [...]; on CPUs XLA computes `argmax` one number at a time."""
    # Without the barrier the scores would be computed twice, once for each reduction.
    scores = jax.lax.optimization_barrier(scores)
    classes = scores.shape[-1]
    is_largest = scores == scores.max(-1, keepdims=True)
    return jnp.where(is_largest, jnp.arange(classes, dtype=jnp.float32), classes).min(-1).astype(jnp.int32)
