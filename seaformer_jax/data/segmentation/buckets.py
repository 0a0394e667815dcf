"""Buckets: the few shapes that images of many sizes are padded to, because every shape is a program of its own.

An XLA program is compiled for one shape of the input and of the label map, which takes seconds; a data set of photos
has hundreds of shapes. The model leaves no trace of the padding in its result (`models.extents`), so a bucket costs
only the time for the padding.
"""

import collections
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging

from seaformer_jax.data.buckets import Size
from seaformer_jax.data.labels import IGNORED
from seaformer_jax.data.segmentation.augment import pad
from seaformer_jax.data.segmentation.transforms import SegmentationEvalTransform, image_name, size_name

LIMIT = 8  # Largest number of buckets.
# The sides of label maps are padded to multiples of the first number. So are those of inputs, to multiples of the
# second, if there are too many shapes: two data sets then share programs that are kept, and a TPU can cut the images
# into bands.
LABEL_MULTIPLE, _INPUT_MULTIPLE = 128, 32

Shapes = tuple[tuple[Size, ...], Size]  # The sizes of the inputs, one per scale, and of the padded label map.


class Buckets:
    """Layout of `data.buckets.InBatches`: the buckets for images of given sizes, at most `LIMIT`.

    They depend on nothing but the sizes, so that all hosts have the same ones. Up to `LIMIT` different shapes stay as
    they are. The log says how many there are.

    Args:
        sizes: (height, width) of every image; None for an image whose header cannot be read.
        transform: Transform of one element.
        merge: False keeps a bucket for every shape, for models that do not know of padding.
    """

    def __init__(
        self, sizes: Sequence[Size | None], transform: SegmentationEvalTransform, *, merge: bool = True
    ):
        self._transform = transform
        exact = [self._exact(size) for size in sizes if size]
        self._bucket = _merged(exact) if merge else {shapes: shapes for shapes in exact}
        padded = [self._bucket[shapes] for shapes in exact]
        logging.info(
            "%d images of %d shapes need %d programs; %.0f %% of their pixels is padding",
            len(exact),
            len(self._bucket),
            len(set(padded)),
            100 * (1 - sum(map(_pixels, exact)) / max(1, sum(map(_pixels, padded)))),
        )

    def _exact(self, size: Size) -> Shapes:
        return self._transform.input_sizes(*size), tuple(_multiple(side, LABEL_MULTIPLE) for side in size)

    def shapes_of(self, size: Size) -> Shapes:
        """Returns the shapes of the bucket for images of this size."""
        exact = self._exact(size)
        return self._bucket.get(exact, exact)  # If no header can be read, another size stands for all images.

    def make(self, element: dict[str, Any], shapes: Shapes) -> dict[str, Any]:
        """Transforms and pads an element {"image": uint8 [H, W, 3], "label": uint8 [H, W]}.

        Returns:
            The entries that `batches.eval_batches` describes.
        """
        inputs, label = shapes
        size = np.array(element["label"].shape, np.int32)
        # The transform resizes the image only. The label map keeps its size.
        element = self._transform.map(element)
        for k, shape in enumerate(inputs):
            image = element[image_name(k)]
            element[image_name(k)] = pad(image, shape, 0)
            element[size_name(k)] = np.array(image.shape[:2], np.int32)
        return element | {"label": pad(element["label"], label, IGNORED), "label_size": size}

    def blank(self, shapes: Shapes) -> dict[str, Any]:
        """Returns black inputs and a label map of which everything is ignored."""
        inputs, label = shapes
        return {
            **{image_name(k): np.zeros((*size, 3), np.uint8) for k, size in enumerate(inputs)},
            **{size_name(k): np.zeros(2, np.int32) for k in range(len(inputs))},
            "label": np.full(label, IGNORED, np.uint8),
            "label_size": np.zeros(2, np.int32),
        }


def _merged(exact: Sequence[Shapes]) -> dict[Shapes, Shapes]:
    """Returns the bucket of each of the shapes."""
    counts = collections.Counter(exact)
    if len(counts) <= LIMIT:
        return {shapes: shapes for shapes in counts}
    rounded = {(inputs, label): (_rounded(inputs), label) for inputs, label in counts}
    counts = collections.Counter(rounded[shapes] for shapes in exact)
    sides = _merge(np.array([_flat(shapes) for shapes in counts]), np.array([*counts.values()]))
    buckets = dict(zip(counts, map(_unflat, sides), strict=True))
    return {shapes: buckets[rounded[shapes]] for shapes in rounded}


def _merge(sides: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Merges buckets until `LIMIT` are left, two at a time: those that add the least padding first.

    Args:
        sides: Sides of the maps of each bucket, int [K, 2 * maps].
        images: Number of images in each, int [K].
    Returns:
        The sides of the bucket that each has become a part of, like `sides`.
    """
    sides, images = sides.copy(), images.copy()
    owner, alive = np.arange(len(sides)), np.ones(len(sides), bool)
    costs = np.array([_costs(sides, images, k) for k in range(len(sides))])
    for _ in range(len(sides) - LIMIT):
        into, gone = sorted(np.unravel_index(costs.argmin(), costs.shape))
        sides[into], images[into] = np.maximum(sides[into], sides[gone]), images[into] + images[gone]
        owner[owner == gone], alive[gone] = into, False
        costs[gone] = costs[:, gone] = np.inf
        costs[into] = costs[:, into] = np.where(alive, _costs(sides, images, into), np.inf)
    return sides[owner]


def _costs(sides: np.ndarray, images: np.ndarray, k: int) -> np.ndarray:
    """Returns the pixels of padding that bucket k would add together with each other one; infinite for itself."""
    together = _areas(np.maximum(sides, sides[k]))
    costs = (together - _areas(sides)) * images + (together - _areas(sides[k])) * images[k]
    return np.where(np.arange(len(sides)) == k, np.inf, costs)


def _areas(sides: np.ndarray) -> np.ndarray:
    """Returns the pixels of inputs and label maps [...] of sides [..., 2 * maps]."""
    return (sides[..., ::2] * sides[..., 1::2]).sum(-1)


def _pixels(shapes: Shapes) -> int:
    return int(_areas(np.array(_flat(shapes))))


def _flat(shapes: Shapes) -> list[int]:
    return [side for size in (*shapes[0], shapes[1]) for side in size]


def _unflat(sides: np.ndarray) -> Shapes:
    *inputs, label = (tuple(pair) for pair in sides.reshape(-1, 2).tolist())
    return tuple(inputs), label


def _rounded(inputs: tuple[Size, ...]) -> tuple[Size, ...]:
    return tuple(tuple(_multiple(side, _INPUT_MULTIPLE) for side in size) for size in inputs)


def _multiple(length: int, of: int) -> int:
    return math.ceil(length / of) * of
