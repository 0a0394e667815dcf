"""Validation batches for images of many sizes.

The model's result depends on the padding of its input, because its attention averages over rows and columns. So only
images with equal input shapes share a batch. The shapes are known from the headers of the files, so the batches are
the same on every host.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from seaformer_jax.data import pipeline
from seaformer_jax.data.buckets import InBatches, Size
from seaformer_jax.data.labels import IGNORED
from seaformer_jax.data.segmentation.augment import pad
from seaformer_jax.data.segmentation.transforms import SegmentationEvalTransform, image_name
from seaformer_jax.data.sources import SkipCorrupt

# The sides of label maps are padded to multiples of this, because every new shape of a batch must be compiled.
LABEL_MULTIPLE = 128

Shapes = tuple[tuple[Size, ...], Size]  # The sizes of the inputs, one per scale, and of the padded label map.


def eval_batches(
    source: SkipCorrupt,
    transform: SegmentationEvalTransform,
    *,
    batch_size: int,
    workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[pipeline.Batch]:
    """Returns batches of every image once; images of equal shapes share batches.

    Args:
        source: A segmentation source in `SkipCorrupt(..., replace=False)`.
        transform: Transform of one element.
        batch_size: Global batch size, divisible by `process_count`.
        workers: Number of processes that decode and transform; 0 uses threads of this process.
        process_index: Index of this host process.
        process_count: Number of host processes.

    Returns:
        An iterator with a `close` method over dictionaries of arrays [B = batch_size / process_count, ...]:
        image, image_1, ...: uint8 [B, h, w, 3].
        label: uint8 [B, Hp, Wp], padded with 255 to multiples of 128.
        label_size: int32 [B, 2], height and width of the label map without its padding, from the upper left corner.
        mask: bool [B], False if there is no image or it could not be read; `image` is black then.
        skipped: int64 [B], 1 if the image could not be read.
    """
    elements = InBatches(source, batch_size, Padded(transform))
    batches = pipeline.ProcessBatches(elements, batch_size, process_index, process_count)
    return pipeline.iterate(batches, 0, workers)


class Padded:
    """Layout of `InBatches`: the shapes are those of the inputs, one per scale, and of the padded label map."""

    def __init__(self, transform: SegmentationEvalTransform):
        self._transform = transform

    def shapes_of(self, size: Size) -> Shapes:
        return self._transform.input_sizes(*size), tuple(padded_length(side) for side in size)

    def make(self, element: dict[str, Any], shapes: Shapes) -> dict[str, Any]:
        # The transform resizes the image only. The label map keeps its size and is padded to the batch's shape.
        size = np.array(element["label"].shape, np.int32)
        element = self._transform.map(element)
        return element | {"label": pad(element["label"], shapes[1], IGNORED), "label_size": size}

    def blank(self, shapes: Shapes) -> dict[str, Any]:
        """Returns black inputs and a label map of which everything is ignored."""
        inputs, label = shapes
        return {
            **{image_name(k): np.zeros((*size, 3), np.uint8) for k, size in enumerate(inputs)},
            "label": np.full(label, IGNORED, np.uint8),
            "label_size": np.zeros(2, np.int32),
        }


def padded_length(length: int) -> int:
    """Returns the length of a padded side of a label map: the next multiple of LABEL_MULTIPLE."""
    return -(-length // LABEL_MULTIPLE) * LABEL_MULTIPLE
