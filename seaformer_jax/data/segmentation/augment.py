"""Geometry and colour operations on one image and its mask, as in mmseg's pipeline.

The source is `seaformer-seg/mmseg/datasets/pipelines/transforms.py` with mmcv's image functions, which call OpenCV.
OpenCV's bilinear interpolation does not antialias when it shrinks, unlike Pillow's. Every random decision comes from
the generator that the caller passes.
"""

import cv2
import numpy as np

from seaformer_jax.data.labels import IGNORED

cv2.setNumThreads(0)  # The pipeline already prepares images in parallel.

_CROP_ATTEMPTS = 10
# The ranges of PhotoMetricDistortion, all at their defaults in the official recipes.
_BRIGHTNESS = 32  # Largest offset up or down, of values 0..255.
_CONTRAST = (0.5, 1.5)
_SATURATION = (0.5, 1.5)
_HUE = 18  # In OpenCV's 180 steps of hue: at most 18 down and 17 up.


def rescaled_size(height: int, width: int, scale: tuple[int, int]) -> tuple[int, int]:
    """Returns the (height, width) of an image that is made as large as `scale` allows, with its aspect ratio kept.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        scale: Two lengths in any order; the larger one bounds the image's longer side, the smaller one its shorter
            side.
    """
    factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
    return max(int(height * factor + 0.5), 1), max(int(width * factor + 0.5), 1)


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes uint8 [H, W, 3] to `size` (height, width), bilinearly and without antialiasing."""
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)


def resize_label(label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes uint8 [H, W] to `size` (height, width); takes the value at floor(position * old size / new size)."""
    return cv2.resize(label, size[::-1], interpolation=cv2.INTER_NEAREST)


def random_crop_corner(
    label: np.ndarray, crop: tuple[int, int], cat_max_ratio: float, rng: np.random.Generator
) -> tuple[int, int]:
    """Draws a crop in which no class covers `cat_max_ratio` or more of the pixels that are not ignored.

    A crop that holds only one class, or none, is also drawn again. Ten draws are checked; the eleventh is taken
    unchecked.

    Args:
        label: uint8 [height, width] of classes and IGNORED.
        crop: Height and width; a side that is longer than the label's is cut to it.
        cat_max_ratio: Share of the pixels that no class may reach; 1 or more takes the first draw.
        rng: Generator of all draws.

    Returns:
        (top, left) in pixels.
    """
    height, width = label.shape
    margins = max(height - crop[0], 0), max(width - crop[1], 0)

    def draw() -> tuple[int, int]:
        return int(rng.integers(margins[0] + 1)), int(rng.integers(margins[1] + 1))

    corner = draw()
    if cat_max_ratio < 1:
        for _ in range(_CROP_ATTEMPTS):
            if _is_mixed(cut(label, corner, crop), cat_max_ratio):
                break
            corner = draw()
    return corner


def _is_mixed(label: np.ndarray, cat_max_ratio: float) -> bool:
    """Whether a crop holds two classes or more, and none covers `cat_max_ratio` or more of it."""
    # The float32 counts are exact for less than 2^24 pixels. This is 50 times as fast as np.unique.
    counts = cv2.calcHist([label], [0], None, [256], [0, 256]).ravel()[:IGNORED]
    return np.count_nonzero(counts) > 1 and counts.max() / counts.sum() < cat_max_ratio


def cut(array: np.ndarray, corner: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Returns a view of [height, width, ...] from `corner` (top, left) on, of `size` or up to the border."""
    return array[corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]]


def pad(array: np.ndarray, size: tuple[int, int], value: int) -> np.ndarray:
    """Pads [h, w, ...] below and on the right with `value`, to the (height, width) of `size`."""
    padded = np.full((*size, *array.shape[2:]), value, array.dtype)
    padded[: array.shape[0], : array.shape[1]] = array
    return padded


def photometric_distortion(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Changes brightness, contrast, saturation and hue, each with probability 1/2 and by a uniform amount.

    Contrast comes directly after brightness or last, with equal probability. After every change the values are
    clipped to 0..255 and truncated to integers. Saturation and hue are changed in OpenCV's 8-bit HSV, each in its
    own conversion.

    Args:
        image: uint8 [height, width, 3], RGB.
        rng: Generator of all draws.

    Returns:
        uint8 [height, width, 3].
    """
    # Every change is a table of 256 values, which is looked up for each pixel. The order of the draws is mmseg's.
    if rng.integers(2):
        image = cv2.LUT(image, _line(1, rng.uniform(-_BRIGHTNESS, _BRIGHTNESS)))
    contrast_first = rng.integers(2)
    if contrast_first:
        image = _distort_contrast(image, rng)
    if rng.integers(2):
        image = _through_hsv(image, 1, _line(rng.uniform(*_SATURATION)))
    if rng.integers(2):
        shift = rng.integers(-_HUE, _HUE)
        image = _through_hsv(image, 0, ((np.arange(256) + shift) % 180).astype(np.uint8))
    return image if contrast_first else _distort_contrast(image, rng)


def _distort_contrast(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Changes the contrast with probability 1/2."""
    return cv2.LUT(image, _line(rng.uniform(*_CONTRAST))) if rng.integers(2) else image


def _line(slope: float, offset: float = 0) -> np.ndarray:
    """Returns the table [256] of slope * value + offset, computed in float32 as the original does."""
    values = np.arange(256, dtype=np.float32) * np.float32(slope) + np.float32(offset)
    return np.clip(values, 0, 255).astype(np.uint8)


def _through_hsv(image: np.ndarray, channel: int, table: np.ndarray) -> np.ndarray:
    """Replaces the values of one channel in HSV by those of a table [256]."""
    # The other two channels get the identity table, so one look-up serves all three.
    tables = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    tables[0, :, channel] = table
    hsv = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), tables)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
