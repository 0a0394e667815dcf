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
import numpy as np

from seaformer_jax.resize import Taps, apply_taps, linear_taps, then

_BAND = 8  # Rows of pixels whose logits exist at a time; few enough for a CPU's cache.

Model = Callable[[jax.Array], jax.Array]  # Images [B, h, w, 3] -> logits [B, ceil(h/8), ceil(w/8), C].


class View(NamedTuple):
    """Logits of one scaled or mirrored view of every image, and the linear maps to logits of the view's pixels."""

    logits: jax.Array  # [B, h, w, C]
    rows: Taps  # h -> height of the view
    columns: Taps  # w -> width of the view


def predict(
    model: Model,
    images: Sequence[jax.Array],
    sizes: jax.Array,
    shape: tuple[int, int],
    config: Mapping[str, Any],
) -> jax.Array:
    """Returns the class of every pixel, int32 [B, *shape]. Values beyond an image's own size are meaningless.

    With several views, the class probabilities are averaged, as in mmseg's `aug_test`. Ties go to the lowest class
    id. A pixel whose scores are NaN gets the number of classes.

    Args:
        model: Returns the logits of one entry of `images`, or of windows of it.
        images: One array [B, h, w, 3] per entry of `eval.scales`, normalised.
        sizes: Height and width of the label of each image, int [B, 2], at most `shape`.
        shape: Height and width of the result; the height is a multiple of 8.
        config: `config.eval` with `mode`, `slide_crop`, `slide_stride` and `flip`.
    """
    # 1. Logits of every view: each scale, then each scale mirrored.
    make_view = functools.partial(_slide, config=config) if config["mode"] == "slide" else _whole
    views = [make_view(model, image) for image in images]
    if config["flip"]:
        views += [_mirror(make_view(model, image[:, :, ::-1])) for image in images]
    # 2. Classes, image by image, so that the logits of a band stay in the cache.
    return jax.lax.map(
        lambda one: _classes(
            [View(z, v.rows, v.columns) for z, v in zip(one[0], views, strict=True)], one[1], shape
        ),
        ([view.logits for view in views], sizes),
    )


def _whole(model: Model, images: jax.Array) -> View:
    """Runs the model on whole images [B, H, W, 3]."""
    logits = model(images)
    (_, height, width, _), (_, h, w, _) = images.shape, logits.shape
    return View(logits, linear_taps(h, height, height), linear_taps(w, width, width))


def _slide(model: Model, images: jax.Array, config: Mapping[str, Any]) -> View:
    """Runs the model on windows of images [B, H, W, 3]; overlapping windows are averaged.

    The last window of each row and column is moved inwards so that it ends at the border.
    """
    batch, *size, _ = images.shape
    # An axis shorter than the window has a single, shorter one.
    crop = tuple(min(pair) for pair in zip(config["slide_crop"], size, strict=True))
    tops, lefts = (_starts(*line) for line in zip(size, crop, config["slide_stride"], strict=True))
    corners = jnp.stack(jnp.meshgrid(tops, lefts, indexing="ij"), -1).reshape(-1, 2)

    def window(corner: jax.Array) -> jax.Array:
        return model(jax.lax.dynamic_slice(images, (0, *corner, 0), (batch, *crop, 3)))

    logits = jax.lax.map(window, corners)
    # The windows' logits are laid side by side in one map, so that the taps below can address any of them.
    *_, h, w, classes = logits.shape
    grid = logits.reshape(len(tops), len(lefts), batch, h, w, classes).transpose(2, 0, 3, 1, 4, 5)
    side_by_side = grid.reshape(batch, len(tops) * h, len(lefts) * w, classes)
    return View(
        side_by_side, _window_taps(tops, crop[0], h, size[0]), _window_taps(lefts, crop[1], w, size[1])
    )


def _starts(length: int, crop: int, stride: int) -> np.ndarray:
    """Returns the first pixel of each window along one axis."""
    count = -(-(length - crop) // stride) + 1
    return np.minimum(np.arange(count) * stride, length - crop)


def _window_taps(starts: np.ndarray, crop: int, cells: int, length: int) -> Taps:
    """Returns the map along one axis from the windows' logits to the logits of the pixels.

    Args:
        starts: First pixel of each window.
        crop: Pixels of a window.
        cells: Logits of a window; those of all windows lie side by side.
        length: Pixels of the image.
    """
    pixel = np.arange(length)[:, None]
    covers = (starts <= pixel) & (pixel < starts + crop)  # [length, windows]
    count = covers.sum(1)
    # The windows that cover a pixel come first. All pixels get as many as the most covered one, because taps need
    # a fixed number per output; the surplus ones have weight 0.
    window = np.argsort(~covers, axis=1, kind="stable")[:, : count.max()]
    covers = np.take_along_axis(covers, window, 1)
    # Within a window the logits are resized linearly; the windows of a pixel count equally.
    taps = linear_taps(cells, crop, crop)
    inside = np.where(covers, pixel - starts[window], 0)
    index = window[..., None] * cells + taps.index[inside]
    weight = taps.weight[inside] * np.float32(covers / count[:, None])[..., None]
    return Taps(index.reshape(length, -1), weight.reshape(length, -1))


def _mirror(view: View) -> View:
    """Mirrors the view of a mirrored image back."""
    return view._replace(columns=Taps(view.columns.index[::-1], view.columns.weight[::-1]))


def _classes(views: Sequence[View], size: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Returns the classes of one image, int32 [*shape], from its views (logits [h, w, C]) and label size int [2]."""

    def to_label(taps: Taps, axis: int) -> Taps:
        # At least 1: the size of padding is 0, and `linear_taps` divides by it.
        return then(taps, linear_taps(len(taps.index), jnp.maximum(size[axis], 1), shape[axis]))

    bands = [jax.tree.map(_in_bands, to_label(view.rows, 0)) for view in views]
    columns = [to_label(view.columns, 1) for view in views]

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
