"""Validation batches for images of many sizes.

The model's result depends on the padding of its input, because its attention averages over rows and columns. So only
images with equal input shapes share a batch. The shapes are known from the headers of the files, so the batches are
the same on every host.
"""

import concurrent.futures
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from seaformer_jax.data import pipeline
from seaformer_jax.data.labels import IGNORED
from seaformer_jax.data.segmentation.augment import pad
from seaformer_jax.data.segmentation.transforms import SegmentationEvalTransform, image_name
from seaformer_jax.data.sources import SkipCorrupt

# The sides of label maps are padded to multiples of this, because every new shape of a batch must be compiled.
LABEL_MULTIPLE = 128

Size = tuple[int, int]
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
    elements = Buckets(source, transform, batch_size)
    batches = pipeline.ProcessBatches(elements, batch_size, process_index, process_count)
    return pipeline.iterate(batches, 0, workers)


class Buckets:
    """Elements in the order of the batches.

    Images of equal shapes follow each other, and each such group is padded to whole batches.
    """

    def __init__(self, source: SkipCorrupt, transform: SegmentationEvalTransform, batch_size: int):
        self._source, self._transform, self._batch_size = source, transform, batch_size
        self._indices: list[int | None] = []  # Index in the source at each position; None is padding.
        self._shapes: list[Shapes] = []  # The shapes of each batch.
        for shapes, members in _group(_sizes(source), transform).items():
            empty = -len(members) % batch_size
            self._indices += [*members, *[None] * empty]
            self._shapes += [shapes] * ((len(members) + empty) // batch_size)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, position: int) -> dict[str, Any]:
        index, (inputs, label) = self._indices[position], self._shapes[position // self._batch_size]
        # Padding and skipped images become black images of the batch's shapes, so that all rows can be stacked.
        if index is None:
            return _blank(inputs, label, skipped=0)
        element = self._source[index]
        if element["skipped"]:
            return _blank(inputs, label, skipped=1)
        # The transform resizes the image only. The label map keeps its size and is padded to the batch's shape.
        size = np.array(element["label"].shape, np.int32)
        element = self._transform.map(element)
        padded = pad(element["label"], label, IGNORED)
        return element | {"label": padded, "label_size": size, "mask": np.bool_(True)}


def _sizes(source: SkipCorrupt) -> Sequence[Size | None]:
    """Returns the (height, width) of every image, read in threads: each read mostly waits for a file."""
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        return list(pool.map(source.size, range(len(source))))


def _group(sizes: Sequence[Size | None], transform: SegmentationEvalTransform) -> dict[Shapes, list[int]]:
    """Returns the images of each combination of shapes, in the order of the source.

    An image whose header is broken has no size and will be skipped; it takes the size of the first image that has
    one.
    """
    groups: dict[Shapes, list[int]] = {}
    known = next((size for size in sizes if size), (LABEL_MULTIPLE, LABEL_MULTIPLE))
    for index, size in enumerate(sizes):
        height, width = size or known
        label = padded_length(height), padded_length(width)
        groups.setdefault((transform.input_sizes(height, width), label), []).append(index)
    return groups


def padded_length(length: int) -> int:
    """Returns the length of a padded side of a label map: the next multiple of LABEL_MULTIPLE."""
    return -(-length // LABEL_MULTIPLE) * LABEL_MULTIPLE


def _blank(inputs: tuple[Size, ...], label: Size, skipped: int) -> dict[str, Any]:
    """Returns an element without an image: black inputs, everything ignored and `mask` False."""
    return {
        **{image_name(k): np.zeros((*size, 3), np.uint8) for k, size in enumerate(inputs)},
        "label": np.full(label, IGNORED, np.uint8),
        "label_size": np.zeros(2, np.int32),
        "mask": np.bool_(False),
        "skipped": skipped,
    }
