"""The class of every pixel: windows, resized and mirrored views, and logits at 1/8 brought to the label's size.

After `mmseg/models/segmentors/encoder_decoder.py`, which resizes the logits twice: to the size of the model's input
and from there to that of the label. Both are linear, and so are the averages of overlapping windows: together they
are one map along the rows and one along the columns, and nothing in between is ever computed at full resolution.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seaformer_jax.resize import Taps, apply_taps, linear_taps, then

LABEL_MULTIPLE = 128  # Label maps are padded to multiples of it, so that fewer shapes are compiled.
_BAND = 8  # Rows of pixels whose logits exist at a time: few enough for a CPU's cache.

Model = Callable[[jax.Array], jax.Array]  # Images [B, h, w, 3] -> logits [B, ceil(h/8), ceil(w/8), C].


class View(NamedTuple):
    """Logits of one view of every image, and how they make those of the view's pixels."""

    logits: jax.Array  # [B, h, w, C]
    rows: Taps  # h -> the height of the view
    columns: Taps  # w -> the width of the view


def predict(
    model: Model,
    images: Sequence[jax.Array],
    sizes: jax.Array,
    shape: tuple[int, int],
    config: Mapping[str, Any],
) -> jax.Array:
    """Returns the class of every pixel, int32 [B, *shape]; what lies beyond an image's size means nothing.

    With several views, class probabilities are averaged (`aug_test`). Of classes with equal scores it is the first;
    where scores are NaN, the number of classes.

    Args:
        model: takes what `images` holds.
        images: one array [B, h, w, 3] per entry of `eval.scales`, normalised.
        sizes: int [B, 2], height and width of the label of each image, at most `shape`.
        shape: height and width of the result, the height a multiple of 8.
        config: `config.eval` with `mode`, `slide_crop`, `slide_stride` and `flip`.
    """
    look = functools.partial(_slide, config=config) if config["mode"] == "slide" else _whole
    views = [look(model, image) for image in images]
    if config["flip"]:
        views += [_mirror(look(model, image[:, :, ::-1])) for image in images]
    # Image by image: the logits of a band stay in the cache.
    return jax.lax.map(
        lambda one: _classes(
            [View(z, v.rows, v.columns) for z, v in zip(one[0], views, strict=True)], one[1], shape
        ),
        ([view.logits for view in views], sizes),
    )


def _whole(model: Model, images: jax.Array) -> View:
    logits = model(images)
    (_, height, width, _), (_, h, w, _) = images.shape, logits.shape
    return View(logits, linear_taps(h, height, height), linear_taps(w, width, width))


def _slide(model: Model, images: jax.Array, config: Mapping[str, Any]) -> View:
    """Windows, the last ones moved inwards to end at the border; their mean where they overlap."""
    batch, *size, _ = images.shape
    crop = tuple(min(pair) for pair in zip(config["slide_crop"], size, strict=True))
    tops, lefts = (_starts(*line) for line in zip(size, crop, config["slide_stride"], strict=True))
    corners = jnp.stack(jnp.meshgrid(tops, lefts, indexing="ij"), -1).reshape(-1, 2)

    def window(corner: jax.Array) -> jax.Array:
        return model(jax.lax.dynamic_slice(images, (0, *corner, 0), (batch, *crop, 3)))

    logits = jax.lax.map(window, corners)
    *_, h, w, classes = logits.shape
    grid = logits.reshape(len(tops), len(lefts), batch, h, w, classes).transpose(2, 0, 3, 1, 4, 5)
    side_by_side = grid.reshape(batch, len(tops) * h, len(lefts) * w, classes)
    return View(
        side_by_side, _window_taps(tops, crop[0], h, size[0]), _window_taps(lefts, crop[1], w, size[1])
    )


def _starts(length: int, crop: int, stride: int) -> np.ndarray:
    """First pixels of the windows along one axis."""
    count = -(-(length - crop) // stride) + 1
    return np.minimum(np.arange(count) * stride, length - crop)


def _window_taps(starts: np.ndarray, crop: int, cells: int, length: int) -> Taps:
    """From the windows' logits, side by side along one axis, `cells` of each, to pixels."""
    pixel = np.arange(length)[:, None]
    covers = (starts <= pixel) & (pixel < starts + crop)  # [length, windows]
    count = covers.sum(1)
    window = np.argsort(~covers, axis=1, kind="stable")[
        :, : count.max()
    ]  # Those that cover the pixel come first.
    covers = np.take_along_axis(covers, window, 1)
    taps = linear_taps(cells, crop, crop)
    inside = np.where(covers, pixel - starts[window], 0)
    index = window[..., None] * cells + taps.index[inside]
    weight = taps.weight[inside] * np.float32(covers / count[:, None])[..., None]
    return Taps(index.reshape(length, -1), weight.reshape(length, -1))


def _mirror(view: View) -> View:
    """The view of a mirrored image, mirrored back."""
    return view._replace(columns=Taps(view.columns.index[::-1], view.columns.weight[::-1]))


def _classes(views: Sequence[View], size: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """views of one image (logits [h, w, C]), size int [2] -> int32 [*shape]."""

    def to_label(taps: Taps, axis: int) -> Taps:
        return then(taps, linear_taps(len(taps.index), jnp.maximum(size[axis], 1), shape[axis]))

    bands = [jax.tree.map(_in_bands, to_label(view.rows, 0)) for view in views]
    columns = [to_label(view.columns, 1) for view in views]

    def classes_of_band(rows: Sequence[Taps]) -> jax.Array:
        scores = [
            apply_taps(columns[k], apply_taps(rows[k], view.logits, 0), 1) for k, view in enumerate(views)
        ]
        return _first_largest(sum(map(jax.nn.softmax, scores)) if len(views) > 1 else scores[0])

    return jax.lax.map(classes_of_band, bands).reshape(shape)


def _in_bands(table: jax.Array) -> jax.Array:
    return table.reshape(-1, _BAND, *table.shape[1:])


def _first_largest(scores: jax.Array) -> jax.Array:
    """[..., C] -> int32 [...], as argmax, which XLA computes one number at a time on CPUs."""
    # Without the barrier the scores would be computed twice, once for each reduction.
    scores = jax.lax.optimization_barrier(scores)
    classes = scores.shape[-1]
    is_largest = scores == scores.max(-1, keepdims=True)
    return jnp.where(is_largest, jnp.arange(classes, dtype=jnp.float32), classes).min(-1).astype(jnp.int32)
