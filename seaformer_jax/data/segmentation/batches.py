"""Validation batches for images of many sizes.

Images of one bucket share a batch; each is padded to the bucket's shapes. The buckets are chosen by the sizes in the
headers of the files, so the batches are the same on every host.
"""

from collections.abc import Iterator

from seaformer_jax.data import pipeline
from seaformer_jax.data.buckets import InBatches, sizes
from seaformer_jax.data.segmentation.buckets import Buckets
from seaformer_jax.data.segmentation.transforms import SegmentationEvalTransform
from seaformer_jax.data.sources import SkipCorrupt


def eval_batches(
    source: SkipCorrupt,
    transform: SegmentationEvalTransform,
    *,
    batch_size: int,
    merge: bool = True,
    workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[pipeline.Batch]:
    """Returns batches of every image once; images of one bucket share batches.

    Args:
        source: A segmentation source in `SkipCorrupt(..., replace=False)`.
        transform: Transform of one element.
        batch_size: Global batch size, divisible by `process_count`.
        merge: As for `buckets.Buckets`.
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
    all_sizes = sizes(source)
    elements = InBatches(source, all_sizes, batch_size, Buckets(all_sizes, transform, merge=merge))
    batches = pipeline.ProcessBatches(elements, batch_size, process_index, process_count)
    return pipeline.iterate(batches, 0, workers)
