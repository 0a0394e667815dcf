"""Turns logits at 1/8 of an image's size into its class map, with a C kernel or, without a C compiler, in NumPy."""

import ctypes
import functools
from collections.abc import Callable

import numpy as np
from absl import logging

from convert.labels import compiler

MAX_CLASSES = 256  # Labels are uint8.
NAME = "argmax_upsample"  # Of the C source and its function.
_SLACK = np.float32(2e-6)  # SLACK in the C source.

Kernel = Callable[[np.ndarray, tuple[int, int]], np.ndarray]


def argmax_upsample(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes logits bilinearly (`align_corners=False`) and returns the class with the largest logit of every pixel.

    Of classes with equal logits the lowest wins. The labels equal those of PyTorch's `interpolate(...).argmax` at
    every pixel and take a small part of its time. The work is done by `argmax_upsample.c`, which is compiled at the
    first call; it writes bytes, so that more than 256 classes are left to NumPy.

    Args:
        logits: float32 [h, w, C], finite.
        size: Height and width of the image.

    Returns:
        The class map [*size], uint8, or uint16 for more than 256 classes.

    Raises:
        ValueError: The logits have another shape, or the image has no pixels.
    """
    logits = np.ascontiguousarray(logits, np.float32)
    if logits.ndim != 3 or min(*logits.shape, *size) < 1:
        raise ValueError(
            f"found logits of shape {logits.shape} for an image of {size}; expected [h, w, C] with at least one "
            "class and an image of at least one pixel"
        )
    kernel = _kernel() if logits.shape[2] <= MAX_CLASSES else numpy_argmax_upsample
    return kernel(logits, size)


def classes(output: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns the class of an image, shape [], or of every pixel, shape [*size], from a model's output for one image.

    Args:
        output: Logits [1, C], logits or logits8 [1, h, w, C], or labels uint8 [1, H, W].
        size: H and W of the input.
    """
    if output.ndim == 4:
        return argmax_upsample(output[0], size)
    return output[0] if output.dtype == np.uint8 else output[0].argmax()


def numpy_argmax_upsample(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Computes `argmax_upsample` without C, about thirty times slower."""
    height, width = size
    low, high, keep, part = _taps(height, len(logits))
    left, right, keep_x, part_x = _taps(width, logits.shape[1])
    labels = np.empty(size, np.uint8 if logits.shape[2] <= MAX_CLASSES else np.uint16)
    # Only the pixels between two neighbouring logit rows are upsampled at a time, and of their classes only those
    # that can win.
    for cell in np.unique(low):
        rows = np.flatnonzero(low == cell)
        pair = logits[[cell, high[rows[0]]]]
        classes = _candidates(pair)
        pair = _lerp(
            pair[:, left][:, :, classes], pair[:, right][:, :, classes], keep_x[:, None], part_x[:, None]
        )
        for row in rows:
            labels[row] = classes[_lerp(*pair, keep[row], part[row]).argmax(1)]
    return labels


def _candidates(pair: np.ndarray) -> np.ndarray:
    """Returns the classes that can win somewhere between two logit rows [2, w, C], in rising order.

    The argument is that of `argmax_upsample.c`, here for all cells between the rows at once.
    """
    smallest, largest = pair.min(0), pair.max(0)
    # The two columns of a cell; the last one is its own neighbour.
    right = np.minimum(np.arange(1, pair.shape[1] + 1), pair.shape[1] - 1)
    bound = np.minimum(smallest, smallest[right]).max(1, keepdims=True)
    loses = np.maximum(largest, largest[right]) < bound - _SLACK * np.abs(bound)
    return np.flatnonzero(~loses.all(0))


def _taps(pixels: int, positions: int) -> tuple[np.ndarray, ...]:
    """Returns (low, high, keep, part): the two positions beside every pixel, int, and their weights, float32."""
    scale = np.float32(positions) / np.float32(pixels)
    place = np.maximum(
        _multiply_add(scale, np.arange(pixels, dtype=np.float32) + np.float32(0.5), np.float32(-0.5)), 0
    )
    low = np.minimum(place.astype(int), positions - 1)
    part = np.minimum(place - low.astype(np.float32), np.float32(1))
    return low, np.minimum(low + 1, positions - 1), np.float32(1) - part, part


def _lerp(a: np.ndarray, b: np.ndarray, keep: np.ndarray, part: np.ndarray) -> np.ndarray:
    return _multiply_add(a, keep, b * part)


def _multiply_add(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Returns a * b + c rounded as by a fused multiply-add: a product of two float32 is exact in float64."""
    return (np.asarray(a, np.float64) * b + c).astype(np.float32)


@functools.cache
def _kernel() -> Kernel:
    """Returns the compiled kernel, or the NumPy form with a warning if it cannot be compiled."""
    try:
        return compiled()
    except OSError as error:
        logging.warning("class maps are computed in NumPy, about thirty times slower than in C: %s", error)
        return numpy_argmax_upsample


def compiled() -> Kernel:
    """Compiles the C source for this machine and returns the kernel; raises OSError if that fails."""
    function = compiler.library(NAME).argmax_upsample
    floats, bytes_ = (np.ctypeslib.ndpointer(dtype, flags="C_CONTIGUOUS") for dtype in (np.float32, np.uint8))
    function.argtypes = [floats, *[ctypes.c_int] * 3, bytes_, *[ctypes.c_int] * 2]
    function.restype = None

    def kernel(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        labels = np.empty(size, np.uint8)
        function(logits, *logits.shape, labels, *size)
        return labels

    return kernel
