"""Geometry and colour of one image and its mask, as mmseg's pipeline has them.

After `seaformer-seg/mmseg/datasets/pipelines/transforms.py` and mmcv's image functions, which call OpenCV: its
bilinear interpolation does not antialias when it shrinks, unlike Pillow's. Every random decision comes from the
generator that the caller passes.
"""

import cv2
import numpy as np

from seaformer_jax.data.labels import IGNORED

cv2.setNumThreads(0)  # Images are prepared in parallel already.

_CROP_ATTEMPTS = 10
# The ranges of PhotoMetricDistortion, all at their defaults in the official recipes.
_BRIGHTNESS = 32  # Of 255, up and down.
_CONTRAST = (0.5, 1.5)
_SATURATION = (0.5, 1.5)
_HUE = 18  # Of OpenCV's 180 degrees of hue; down by as much, up by one less.


def rescaled_size(height: int, width: int, scale: tuple[int, int]) -> tuple[int, int]:
    """Returns the (height, width) of an image made as large as `scale` allows, its ratio kept.

    Args:
        height, width: of the image, in pixels.
        scale: two lengths in any order; the longer bounds the image's longer side, the shorter its shorter one.
    """
    factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
    return max(int(height * factor + 0.5), 1), max(int(width * factor + 0.5), 1)


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes uint8 [H, W, 3] to [height, width, 3] of `size`, bilinearly and without antialiasing."""
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)


def resize_label(label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes uint8 [H, W] to [height, width] of `size`: the value at floor(position times the ratio of sizes)."""
    return cv2.resize(label, size[::-1], interpolation=cv2.INTER_NEAREST)


def random_crop_corner(
    label: np.ndarray, crop: tuple[int, int], cat_max_ratio: float, rng: np.random.Generator
) -> tuple[int, int]:
    """Draws a crop in which no class covers `cat_max_ratio` or more of the pixels that are not ignored.

    Ten draws are looked at; after that the next one is taken as it is. A crop of one class alone, or of none,
    is drawn again, too.

    Args:
        label: uint8 [height, width] of classes and IGNORED.
        crop: height and width; a side that is longer than the label's is cut to it.
        cat_max_ratio: share of a class; 1 or more takes the first draw.
        rng: the source of all draws.

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
    # float32 counts of an image of less than 2^24 pixels are exact; 50 times as fast as np.unique.
    counts = cv2.calcHist([label], [0], None, [256], [0, 256]).ravel()[:IGNORED]
    return np.count_nonzero(counts) > 1 and counts.max() / counts.sum() < cat_max_ratio


def cut(array: np.ndarray, corner: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Returns the view of [height, width, ...] below and right of `corner`, `size` or as much as there is."""
    return array[corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]]


def pad(array: np.ndarray, size: tuple[int, int], value: int) -> np.ndarray:
    """Pads [h, w, ...] below and on the right with `value` to [height, width, ...] of `size`."""
    padded = np.full((*size, *array.shape[2:]), value, array.dtype)
    padded[: array.shape[0], : array.shape[1]] = array
    return padded


def photometric_distortion(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Changes brightness, contrast, saturation and hue, each with probability 1/2 and a uniform amount.

    Contrast comes, with probability 1/2 each, after brightness or last; after every change the values are cut to
    0..255 and truncated to integers, and saturation and hue go through OpenCV's 8-bit HSV each on its own.

    Args:
        image: uint8 [height, width, 3], RGB.
        rng: the source of all draws.

    Returns:
        uint8 [height, width, 3].
    """
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
    return cv2.LUT(image, _line(rng.uniform(*_CONTRAST))) if rng.integers(2) else image


def _line(slope: float, offset: float = 0) -> np.ndarray:
    """The table [256] of slope * value + offset, in float32 as the original computes it."""
    values = np.arange(256, dtype=np.float32) * np.float32(slope) + np.float32(offset)
    return np.clip(values, 0, 255).astype(np.uint8)


def _through_hsv(image: np.ndarray, channel: int, table: np.ndarray) -> np.ndarray:
    """Replaces the values of one channel in HSV."""
    tables = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    tables[0, :, channel] = table
    hsv = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), tables)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
