"""Validation batches of images of many sizes.

The model's result depends on the padding of its input (its attention averages over rows and columns), so only
images whose inputs have equal shapes share a batch. Which do is known from the headers of the files and the same on
every host.
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

_LABEL_MULTIPLE = 128  # Label maps are padded to it: every shape of a batch is compiled for.

Size = tuple[int, int]
Shapes = tuple[tuple[Size, ...], Size]  # Of the inputs, one per scale, and of the padded label.


def eval_batches(
    source: SkipCorrupt,
    transform: SegmentationEvalTransform,
    *,
    batch_size: int,
    workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[pipeline.Batch]:
    """Every image once, with those of equal shapes together.

    Args:
        source: a segmentation source within `SkipCorrupt(..., replace=False)`.
        transform: of one element.
        batch_size: global; divisible by `process_count`.
        workers: processes that decode and transform; 0 uses threads of this one.
        process_index, process_count: of this host.

    Returns:
        An iterator with a `close` method over dictionaries of arrays [B = batch_size / process_count, ...]:
        image, image_1, ...: uint8 [B, h, w, 3].
        label: uint8 [B, Hp, Wp], padded with 255 to multiples of 128.
        label_size: int32 [B, 2], height and width of the label, from the upper left corner.
        mask: bool [B], False where there is no image or it could not be read; `image` is black there.
        skipped: int64 [B], 1 where it could not be read.
    """
    elements = Buckets(source, transform, batch_size)
    batches = pipeline.ProcessBatches(elements, batch_size, process_index, process_count)
    return pipeline.iterate(batches, 0, workers)


class Buckets:
    """Elements in the order of the batches: images of equal shapes in runs, each filled up to whole batches."""

    def __init__(self, source: SkipCorrupt, transform: SegmentationEvalTransform, batch_size: int):
        self._source, self._transform, self._batch_size = source, transform, batch_size
        self._indices: list[int | None] = []  # Of the source; None is padding.
        self._shapes: list[Shapes] = []  # Of each batch.
        for shapes, members in _group(_sizes(source), transform).items():
            empty = -len(members) % batch_size
            self._indices += [*members, *[None] * empty]
            self._shapes += [shapes] * ((len(members) + empty) // batch_size)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, position: int) -> dict[str, Any]:
        index, (inputs, label) = self._indices[position], self._shapes[position // self._batch_size]
        if index is None:
            return _blank(inputs, label, skipped=0)
        element = self._source[index]
        if element["skipped"]:
            return _blank(inputs, label, skipped=1)
        size = np.array(element["label"].shape, np.int32)
        element = self._transform.map(element)
        padded = pad(element["label"], label, IGNORED)
        return element | {"label": padded, "label_size": size, "mask": np.bool_(True)}


def _sizes(source: SkipCorrupt) -> Sequence[Size | None]:
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        return list(pool.map(source.size, range(len(source))))


def _group(sizes: Sequence[Size | None], transform: SegmentationEvalTransform) -> dict[Shapes, list[int]]:
    """Returns the images of each combination of shapes, in the order of the source.

    Images without a size have a broken header and will be skipped; they join the first ones.
    """
    groups: dict[Shapes, list[int]] = {}
    known = next((size for size in sizes if size), (_LABEL_MULTIPLE, _LABEL_MULTIPLE))
    for index, size in enumerate(sizes):
        height, width = size or known
        label = _round_up(height), _round_up(width)
        groups.setdefault((transform.input_sizes(height, width), label), []).append(index)
    return groups


def _round_up(length: int) -> int:
    return -(-length // _LABEL_MULTIPLE) * _LABEL_MULTIPLE


def _blank(inputs: tuple[Size, ...], label: Size, skipped: int) -> dict[str, Any]:
    return {
        **{image_name(k): np.zeros((*size, 3), np.uint8) for k, size in enumerate(inputs)},
        "label": np.full(label, IGNORED, np.uint8),
        "label_size": np.zeros(2, np.int32),
        "mask": np.bool_(False),
        "skipped": skipped,
    }
