"""Validation batches for images of many sizes.

Images of one bucket share a batch; each is padded to the bucket's shapes. The buckets are chosen by the sizes in the
headers of the files, so the batches are the same on every host.
"""

import concurrent.futures
from collections.abc import Iterator, Sequence
from typing import Any

from seaformer_jax.data import pipeline
from seaformer_jax.data.segmentation.buckets import Buckets, Shapes, Size, blank
from seaformer_jax.data.segmentation.transforms import SegmentationEvalTransform
from seaformer_jax.data.sources import SkipCorrupt


def eval_batches(
    source: SkipCorrupt,
    transform: SegmentationEvalTransform,
    *,
    batch_size: int,
    workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[pipeline.Batch]:
    """Returns batches of every image once; images of one bucket share batches.

    Args:
        source: A segmentation source in `SkipCorrupt(..., replace=False)`.
        transform: Transform of one element.
        batch_size: Global batch size, divisible by `process_count`.
        workers: Number of processes that decode and transform; 0 uses threads of this process.
        process_index: Index of this host process.
        process_count: Number of host processes.

    Returns:
        An iterator with a `close` method over dictionaries of arrays [B = batch_size / process_count, ...]:
        image, image_1, ...: uint8 [B, h, w, 3], padded with 0.
        size, size_1, ...: int32 [B, 2], height and width of these without their padding, from the upper left corner.
        label: uint8 [B, Hp, Wp], padded with 255.
        label_size: int32 [B, 2], height and width of the label map without its padding.
        mask: bool [B], False if there is no image or it could not be read; `image` is black then.
        skipped: int64 [B], 1 if the image could not be read.
    """
    elements = Elements(source, transform, batch_size)
    batches = pipeline.ProcessBatches(elements, batch_size, process_index, process_count)
    return pipeline.iterate(batches, 0, workers)


class Elements:
    """Elements in the order of the batches.

    The images of a bucket follow each other, and each such group is padded to whole batches.
    """

    def __init__(self, source: SkipCorrupt, transform: SegmentationEvalTransform, batch_size: int):
        self._source, self._batch_size = source, batch_size
        self._buckets = Buckets(image_sizes(source), transform)
        members: dict[Shapes, list[int]] = {}
        for index, shapes in enumerate(self._buckets.shapes):
            members.setdefault(shapes, []).append(index)
        self._indices: list[int | None] = []  # Index in the source at each position; None is padding.
        self._shapes: list[Shapes] = []  # The shapes of each batch.
        for shapes, indices in members.items():
            empty = -len(indices) % batch_size
            self._indices += [*indices, *[None] * empty]
            self._shapes += [shapes] * ((len(indices) + empty) // batch_size)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, position: int) -> dict[str, Any]:
        index, shapes = self._indices[position], self._shapes[position // self._batch_size]
        # Padding and skipped images become black images of the batch's shapes, so that all rows can be stacked.
        if index is None:
            return blank(shapes, skipped=0)
        element = self._source[index]
        return blank(shapes, skipped=1) if element["skipped"] else self._buckets.element(element)


def image_sizes(source: SkipCorrupt) -> Sequence[Size | None]:
    """Returns the (height, width) of every image, read in threads: each read mostly waits for a file."""
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        return list(pool.map(source.size, range(len(source))))
