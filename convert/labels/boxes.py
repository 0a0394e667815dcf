"""Turns a detector's logits and box deltas into boxes, with a C kernel or, without a C compiler, in NumPy."""

import ctypes
import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from absl import logging

from convert.labels import compiler
from seaformer_jax.detection.anchors import anchors, level_counts

NAME = "decode_boxes"  # Of the C source and its function.
_MOST_LOG = np.float32(4.135166556742356)  # MOST_LOG in the C source.
_LEVELS = 5


class Decoding(NamedTuple):
    """How the outputs of a detector become boxes.

    Attributes:
        input_size: H and W of the network's input in pixels.
        anchor_scale: Side of a level's smallest square anchor / stride of the level.
        score_threshold: Scores have to be above this one.
        iou_threshold: Of two boxes of a class that overlap by more, only the one with the higher score is kept.
        per_level: Most pairs of anchor and class that a level of the feature pyramid proposes.
        per_image: Most boxes of an image.
    """

    input_size: tuple[int, int]
    anchor_scale: float
    score_threshold: float
    iou_threshold: float
    per_level: int
    per_image: int

    @classmethod
    def settings(cls) -> tuple[str, ...]:
        """Returns the names of the fields of `Bundle.decoding`, in the order in which `decode_boxes.c` takes them."""
        return cls._fields[1:]


class Photograph(NamedTuple):
    """How an image lies in the input: in its upper left corner, with padding below and to the right.

    Attributes:
        size: Height and width of the image in the input, in pixels.
        scale: That size / the size of the original image, for height and width; boxes are in its pixels.
    """

    size: tuple[int, int]
    scale: tuple[float, float] = (1.0, 1.0)


class Boxes(NamedTuple):
    """The D boxes of an image, best score first.

    Attributes:
        boxes: Corners (x1, y1, x2, y2) in pixels of the original image, float32 [D, 4].
        scores: In 0..1, float32 [D].
        labels: Classes, int32 [D].
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


Kernel = Callable[[np.ndarray, Decoding, Photograph], Boxes]


def decode(head: np.ndarray, decoding: Decoding, photograph: Photograph | None = None) -> Boxes:
    """Returns the boxes of an image, after non-maximum suppression within each class.

    The rules are those of `seaformer_jax.detection.postprocess`. Of equal scores the finer level comes first, and
    then the higher logit. The work is done by `decode_boxes.c`, which is compiled at the first call.

    Args:
        head: Logits and box deltas of the A anchors, side by side: float32 [A, C + 4].
        decoding: How the outputs of the detector become boxes.
        photograph: The image in the input; None if the image fills it.

    Raises:
        ValueError: The number of anchors is not that of the input size, or there is no class.
    """
    head = np.ascontiguousarray(head, np.float32)
    expected = sum(level_counts(*decoding.input_size))
    if head.ndim != 2 or len(head) != expected or head.shape[1] < 5:
        raise ValueError(
            f"found outputs of shape {head.shape} for an input of {decoding.input_size}; expected "
            f"[{expected}, classes + 4]"
        )
    return _kernel()(head, decoding, photograph or Photograph(decoding.input_size))


def found_again(some: Boxes, others: Boxes, decoding: Decoding) -> np.ndarray:
    """Returns for every box of `some` if one of `others` has its class and overlaps it: bool [D].

    The overlap has to be above the threshold of the suppression, for which two such boxes are one object. A closer
    fit is not asked for: a rounding error of a score makes the suppression keep another box of the object. How exact
    the boxes are is compared before the suppression, by the box deltas.
    """
    again = [
        (_overlap(others.boxes[others.labels == label], box) > decoding.iou_threshold).any()
        for box, label in zip(some.boxes, some.labels, strict=True)
    ]
    return np.array(again, bool)


def numpy_decode(head: np.ndarray, decoding: Decoding, photograph: Photograph) -> Boxes:
    """Computes `decode` without C."""
    ends = np.cumsum(level_counts(*decoding.input_size))
    levels = [_proposed(head, decoding, first, end) for first, end in itertools.pairwise([0, *ends])]
    rows, labels = (np.concatenate(parts) for parts in zip(*levels, strict=True))
    grid = anchors(*decoding.input_size, decoding.anchor_scale)[rows]
    boxes = _decoded(head[rows, -4:], grid, photograph)
    scores = _sigmoid(head[rows, labels])
    # The sort is stable, so that of equal scores the first proposed comes first.
    order = np.argsort(-scores, kind="stable")
    order = order[(boxes[order, 2:] > boxes[order, :2]).all(1)]
    kept = _suppressed(boxes[order], labels[order], decoding)
    return Boxes(boxes[order[kept]], scores[order[kept]], labels[order[kept]].astype(np.int32))


def _proposed(head: np.ndarray, decoding: Decoding, first: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the anchors and classes that the anchors `first` to `end` propose, best first."""
    logits = head[first:end, :-4]
    rows, labels = np.nonzero(_sigmoid(logits) > decoding.score_threshold)
    order = np.argsort(-logits[rows, labels], kind="stable")[: decoding.per_level]
    return first + rows[order], labels[order]


def _decoded(deltas: np.ndarray, grid: np.ndarray, photograph: Photograph) -> np.ndarray:
    """Returns the boxes of deltas and anchors [n, 4], clipped to the image, in pixels of the original: [n, 4]."""
    low, high = grid[:, :2], grid[:, 2:]
    size, half = high - low, np.float32(0.5)
    centre = (low + high) * half + size * deltas[:, :2]
    reach = size * np.exp(np.clip(deltas[:, 2:], -_MOST_LOG, _MOST_LOG)) * half
    limit, scale = (np.array(pair[::-1], np.float32) for pair in photograph)
    corners = [np.clip(corner, 0, limit) / scale for corner in (centre - reach, centre + reach)]
    return np.concatenate(corners, axis=1)


def _suppressed(boxes: np.ndarray, labels: np.ndarray, decoding: Decoding) -> list[int]:
    """Returns the positions of the boxes that are kept; the boxes [n, 4] are sorted by score."""
    kept: list[int] = []
    for i in range(len(boxes)):
        if len(kept) == decoding.per_image:
            break
        same = [k for k in kept if labels[k] == labels[i]]
        if not (_overlap(boxes[same], boxes[i]) > decoding.iou_threshold).any():
            kept.append(i)
    return kept


def _overlap(some: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Returns the intersection over union of boxes [n, 4] with one box [4]: [n]."""
    sides = np.minimum(some[:, 2:], box[2:]) - np.maximum(some[:, :2], box[:2])
    common = np.maximum(sides, 0).prod(1)
    areas = (some[:, 2:] - some[:, :2]).prod(1) + (box[2:] - box[:2]).prod()
    return common / np.maximum(areas - common, np.float32(1e-6))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # exp(100) is infinite in float32, and the result 0.
        return 1 / (1 + np.exp(-x))


@functools.cache
def _kernel() -> Kernel:
    """Returns the compiled kernel, or the NumPy form with a warning if it cannot be compiled."""
    try:
        return compiled()
    except OSError as error:
        logging.warning("boxes are computed in NumPy, slower than in C: %s", error)
        return numpy_decode


def compiled() -> Kernel:
    """Compiles the C source for this machine and returns the kernel; raises OSError if that fails."""
    function = compiler.library(NAME).decode_boxes
    address, count = ctypes.c_void_p, ctypes.c_int
    function.argtypes = [
        *map(ctypes.POINTER, (_Decoding, _Photograph)), address, count, address, count, address, address,
    ]  # fmt: skip
    function.restype = count

    def kernel(head: np.ndarray, decoding: Decoding, photograph: Photograph) -> Boxes:
        # Logits and deltas of an anchor are side by side, so both have the same step from one anchor to the next.
        step = head.shape[1]
        classes, logits = step - 4, head.ctypes.data
        detector = _Decoding(*decoding.input_size, classes, *decoding[1:])
        image = _Photograph(*photograph.size, *photograph.scale)
        scratch, found = (
            np.empty(_LEVELS * decoding.per_level, _CANDIDATE),
            np.empty(decoding.per_image, _BOX),
        )
        outputs = logits, step, logits + classes * head.itemsize, step
        number = function(detector, image, *outputs, scratch.ctypes.data, found.ctypes.data)
        return Boxes(*(found[:number][field].copy() for field in ("corners", "score", "label")))

    return kernel


class _Decoding(ctypes.Structure):
    """BoxDecoding of the C source."""

    _fields_ = [
        *((name, ctypes.c_int) for name in ("height", "width", "classes")),
        *((name, ctypes.c_float) for name in ("anchor_scale", "score_threshold", "iou_threshold")),
        *((name, ctypes.c_int) for name in ("per_level", "per_image")),
    ]


class _Photograph(ctypes.Structure):
    """BoxPhotograph of the C source."""

    _fields_ = [
        *((name, ctypes.c_int) for name in ("height", "width")),
        *((name, ctypes.c_float) for name in ("y_scale", "x_scale")),
    ]


# BoxCandidate and Box of the C source.
_CANDIDATE = np.dtype([("logit", np.float32), ("anchor", np.int32), ("label", np.int32)])
_BOX = np.dtype([("corners", np.float32, 4), ("score", np.float32), ("label", np.int32)])
