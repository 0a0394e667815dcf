"""Training and validation batches of images with boxes."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from seaformer_jax.data import pipeline
from seaformer_jax.data.buckets import InBatches, sizes
from seaformer_jax.data.detection.sources import Source
from seaformer_jax.data.detection.transforms import DetectionEvalTransform, Size, bucket_of
from seaformer_jax.data.sources import SkipCorrupt


def buckets(source: Source, scale: Size, all_buckets: tuple[Size, ...]) -> np.ndarray:
    """Returns the bucket of every image of a source, int32 [N]; raises the error of `bucket_of`."""
    found = {}  # A data set has few different sizes.
    result = np.empty(len(source), np.int32)
    for index in range(len(source)):
        size = source.size(index)
        if size not in found:
            found[size] = bucket_of(size, scale, all_buckets)
        result[index] = found[size]
    return result


def eval_batches(
    source: SkipCorrupt,
    transform: DetectionEvalTransform,
    *,
    batch_size: int,
    workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[pipeline.Batch]:
    """Returns batches of every image once; images whose padded inputs are equally large share batches.

    The arguments and the result are those of `pipeline.eval_batches`; the batches have the entries of `transform`.

    Args:
        source: A detection source in `SkipCorrupt(..., replace=False)`.
    """
    elements = InBatches(source, sizes(source), batch_size, _Padded(transform))
    return pipeline.iterate(
        pipeline.ProcessBatches(elements, batch_size, process_index, process_count), 0, workers
    )


class _Padded:
    """Layout of `InBatches`: the shape is that of the padded input."""

    def __init__(self, transform: DetectionEvalTransform):
        self._transform = transform

    def shapes_of(self, size: Size) -> Size:
        return self._transform.padded_size(*size)

    def make(self, element: dict[str, Any], shapes: Size) -> dict[str, Any]:
        return self._transform.map(element)

    def blank(self, shapes: Size) -> dict[str, Any]:
        return {
            "image": np.zeros((*shapes, 3), np.uint8),
            "size": np.array(shapes, np.int32),
            "scale": np.ones(2, np.float32),
            "index": np.int32(-1),
        }
