"""Class maps of images from logits at 1/8 of their size: a C kernel, or its NumPy twin where no C compiler is."""

import ctypes
import functools
import pathlib
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable

import numpy as np
from absl import logging

MAX_CLASSES = 256  # Labels are uint8.
SOURCES = tuple(pathlib.Path(__file__).with_name(f"argmax_upsample.{suffix}") for suffix in ("h", "c"))
_COMPILERS = ("cc", "gcc", "clang")
_SLACK = np.float32(2e-6)  # As in the C source.

Kernel = Callable[[np.ndarray, tuple[int, int]], np.ndarray]


def argmax_upsample(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes logits bilinearly (`align_corners=False`) and takes the class of the largest, the lowest of equals.

    Pixel for pixel the labels of PyTorch's `interpolate(...).argmax`, in a small part of its time: see
    `argmax_upsample.c`, which is compiled at the first call.

    Args:
        logits: float32 [h, w, C], finite, of at most 256 classes.
        size: height and width of the image.
    Returns:
        uint8 [*size].
    Raises:
        ValueError: the logits have another shape, or the image no pixels.
    """
    logits = np.ascontiguousarray(logits, np.float32)
    if logits.ndim != 3 or not 1 <= logits.shape[2] <= MAX_CLASSES or min(*logits.shape, *size) < 1:
        raise ValueError(
            f"found logits of shape {logits.shape} for an image of {size}; expected [h, w, C] with 1 to "
            f"{MAX_CLASSES} classes and an image of at least one pixel"
        )
    return _kernel()(logits, size)


def classes(output: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The class of an image, [], or of every pixel, [*size], from what a model gives for one image.

    Args:
        output: logits [1, C], logits or logits8 [1, h, w, C], or labels uint8 [1, H, W].
        size: H and W of the input.
    """
    if output.ndim == 4:
        return argmax_upsample(output[0], size)
    return output[0] if output.dtype == np.uint8 else output[0].argmax()


def numpy_argmax_upsample(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The same without C, some thirty times slower: float32 [h, w, C] -> uint8 [*size]."""
    height, width = size
    low, high, keep, part = _taps(height, len(logits))
    left, right, keep_x, part_x = _taps(width, logits.shape[1])
    labels = np.empty(size, np.uint8)
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
    """[2, w, C] -> the classes that can win somewhere between these two rows, rising."""
    smallest, largest = pair.min(0), pair.max(0)
    right = np.minimum(np.arange(1, pair.shape[1] + 1), pair.shape[1] - 1)
    bound = np.minimum(smallest, smallest[right]).max(1, keepdims=True)
    loses = np.maximum(largest, largest[right]) < bound - _SLACK * np.abs(bound)
    return np.flatnonzero(~loses.all(0))


def _taps(pixels: int, positions: int) -> tuple[np.ndarray, ...]:
    """For every pixel the two positions beside it, int, and their weights, float32."""
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
    """a * b + c, rounded once, as a fused multiply-add does: a product of two float32 is exact in float64."""
    return (np.asarray(a, np.float64) * b + c).astype(np.float32)


@functools.cache
def _kernel() -> Kernel:
    try:
        return compiled()
    except OSError as error:
        logging.warning("class maps come from NumPy, some thirty times slower than from C: %s", error)
        return numpy_argmax_upsample


def compiled() -> Kernel:
    """Compiles the C source for this very machine; OSError where there is no compiler, or it fails."""
    compiler = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if compiler is None:
        raise OSError(f"no C compiler: found none of {', '.join(_COMPILERS)} on the path")
    tuned = ["-march=native"] if platform.machine() in ("x86_64", "AMD64") else []  # fused multiply-add
    # Not kept: another machine that sees the same folder may lack this one's instructions.
    with tempfile.TemporaryDirectory() as folder:
        library = pathlib.Path(folder) / "argmax_upsample.so"
        options = ["-O2", "-ftree-vectorize", *tuned, "-shared", "-fPIC"]
        command = [compiler, *options, str(SOURCES[1]), "-o", str(library), "-lm"]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            raise OSError(f"{' '.join(command)}: {result.stderr.strip()}")
        return _bound(ctypes.CDLL(str(library)))


def _bound(library: ctypes.CDLL) -> Kernel:
    function = library.argmax_upsample
    floats, bytes_ = (np.ctypeslib.ndpointer(dtype, flags="C_CONTIGUOUS") for dtype in (np.float32, np.uint8))
    function.argtypes = [floats, *[ctypes.c_int] * 3, bytes_, *[ctypes.c_int] * 2]
    function.restype = None

    def kernel(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        labels = np.empty(size, np.uint8)
        function(logits, *logits.shape, labels, *size)
        return labels

    return kernel
