"""Geometry of an image and its boxes together; boxes are (x1, y1, x2, y2) in pixels, float32 [n, 4].

Source: `Resize`, `RandomFlip` and `RandomCrop` of mmdetection.
"""

import numpy as np

from seaformer_jax.data.segmentation.augment import cut, rescaled_size, resize_image

# A box that the crop cuts is kept if this share of its area is left. Ours; mmdetection keeps every remainder.
_LEFT = 0.25

Boxed = tuple[np.ndarray, np.ndarray]  # An image uint8 [H, W, 3] and its boxes.


def resize(image: np.ndarray, boxes: np.ndarray, scale: tuple[int, int]) -> Boxed:
    """Resizes an image as far as `scale` allows (its long and short side), and its boxes by the exact factors.

    The boxes are clipped to the image.
    """
    height, width = rescaled_size(*image.shape[:2], scale)
    factors = np.array([width / image.shape[1], height / image.shape[0]] * 2, np.float32)
    return resize_image(image, (height, width)), clip(boxes * factors, height, width)


def clip(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns the boxes with x in [0, width] and y in [0, height]."""
    return np.clip(boxes, 0, np.array([width, height] * 2, np.float32))


def flip(image: np.ndarray, boxes: np.ndarray) -> Boxed:
    """Mirrors an image left to right."""
    width = image.shape[1]
    x1, y1, x2, y2 = boxes.T
    return image[:, ::-1], np.stack([width - x2, y1, width - x1, y2], -1)


def flip_vertically(image: np.ndarray, boxes: np.ndarray) -> Boxed:
    """Mirrors an image top to bottom."""
    height = image.shape[0]
    x1, y1, x2, y2 = boxes.T
    return image[::-1], np.stack([x1, height - y2, x2, height - y1], -1)


def random_crop(
    image: np.ndarray, boxes: np.ndarray, size: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cuts a random window of `size` (height, width) out of an image; a side that is not longer stays.

    Returns:
        The window, all boxes relative to it and clipped, and which of them are kept, bool [n].
    """
    margins = [max(side - most, 0) for side, most in zip(image.shape[:2], size, strict=True)]
    top, left = (int(rng.integers(margin + 1)) for margin in margins)
    window = cut(image, (top, left), size)
    moved = clip(boxes - np.array([left, top] * 2, np.float32), *window.shape[:2])
    return window, moved, _areas(moved) >= _LEFT * _areas(boxes)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
