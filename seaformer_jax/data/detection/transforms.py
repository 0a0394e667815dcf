"""The transforms of one image and its boxes, as grain applies them.

Elements are those of `data.detection.sources`. Normalisation happens on the device, because uint8 images are a
quarter of the bytes to move.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import grain
import numpy as np

from seaformer_jax import errors
from seaformer_jax.data.detection import augment as ops
from seaformer_jax.data.segmentation.augment import pad, photometric_distortion, rescaled_size

Size = tuple[int, int]


def bucket_of(size: Size, scale: Size, buckets: Sequence[Size]) -> int:
    """Returns the index of the smallest bucket that holds an image after it is resized.

    Args:
        size: Height and width of the image.
        scale: `data.scale`, the largest long and short side of the resized image.
        buckets: `data.buckets`, the (height, width) that images are padded to.
    Raises:
        UserError: No bucket is large enough.
    """
    resized = rescaled_size(*size, scale)
    fitting = [
        k for k, bucket in enumerate(buckets) if all(a <= b for a, b in zip(resized, bucket, strict=True))
    ]
    if not fitting:
        raise errors.UserError(
            f"data.buckets is {tuple(map(tuple, buckets))!r}, and none holds an image of {resized[0]} x {resized[1]} "
            f"pixels (height x width), which data.scale makes of {size[0]} x {size[1]}; add a bucket"
        )
    return min(fitting, key=lambda k: buckets[k][0] * buckets[k][1])


class DetectionTrainTransform(grain.transforms.RandomMap):
    """Random scale, crop, flips, photometric distortion and padding.

    Without random scale, vertical flip and distortion this is mmdetection's `train_pipeline` of `coco_detection.py`.

    The result's `image` is uint8 [H, W, 3], padded on the right and at the bottom to the bucket of the image. Its
    `size`, int32 [2], is the height and width of the part without padding. Its `boxes`, float32 [max_boxes, 4], and
    `labels`, int32 [max_boxes], are padded with 0 and -1.

    Args:
        data: `config.data`, or a mapping with its keys `scale`, `buckets` and `max_boxes`.
        augment: `config.augment`, or a mapping with its keys `scale_range`, `flip`, `flip_vertical` (probabilities)
            and `photometric`.
    """

    def __init__(self, data: Mapping[str, Any], augment: Mapping[str, Any]):
        # Store plain values only: grain pickles the transform for its workers.
        self._scale, self._most = tuple(data["scale"]), data["max_boxes"]
        self._buckets = tuple(tuple(bucket) for bucket in data["buckets"])
        self._range = tuple(augment["scale_range"])
        self._flip, self._flip_vertical = augment["flip"], augment["flip_vertical"]
        self._photometric = augment["photometric"]

    def random_map(self, element: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        image, boxes, labels = element["image"], element["boxes"], element["labels"]
        bucket = self._buckets[bucket_of(image.shape[:2], self._scale, self._buckets)]
        # 1. Scale, and a crop where the result is larger than the bucket.
        ratio = rng.uniform(*self._range)
        image, boxes = ops.resize(image, boxes, tuple(int(side * ratio) for side in self._scale))
        image, boxes, kept = ops.random_crop(image, boxes, bucket, rng)
        boxes, labels = boxes[kept], labels[kept]
        # 2. Flips; OpenCV needs contiguous memory afterwards.
        if rng.random() < self._flip:
            image, boxes = ops.flip(image, boxes)
        if rng.random() < self._flip_vertical:
            image, boxes = ops.flip_vertically(image, boxes)
        image = np.ascontiguousarray(image)
        # 3. Distort the colours before padding, so that padding stays black.
        if self._photometric:
            image = photometric_distortion(image, rng)
        # 4. Pad.
        padded = np.full(self._most, -1, np.int32)
        padded[: len(labels)] = labels
        return {
            "image": pad(image, bucket, 0),
            "size": np.array(image.shape[:2], np.int32),
            "boxes": pad(boxes.astype(np.float32), (self._most, 4), 0),
            "labels": padded,
            "skipped": element["skipped"],
        }


class DetectionEvalTransform(grain.transforms.Map):
    """Resizes the image as large as `eval.scale` allows and pads it on the right and at the bottom.

    This is mmdetection's `test_pipeline`. The result has `image` uint8 [H, W, 3]; `size` int32 [2], the height and
    width without padding; `scale` float32 [2], the exact factors of height and width; and `index`.

    Args:
        evaluation: `config.eval`, or a mapping with its keys `scale` and `pad_multiple`, to whose multiples the sides
            are padded.
    """

    def __init__(self, evaluation: Mapping[str, Any]):
        self._scale, self._multiple = tuple(evaluation["scale"]), evaluation["pad_multiple"]

    def padded_size(self, height: int, width: int) -> Size:
        """Returns the (height, width) of the result for an image of this size."""
        m = self._multiple
        return tuple(-(-side // m) * m for side in rescaled_size(height, width, self._scale))

    def map(self, element: dict[str, Any]) -> dict[str, Any]:
        old = element["image"].shape[:2]
        image, _ = ops.resize(element["image"], np.zeros((0, 4), np.float32), self._scale)
        return {
            "image": pad(image, self.padded_size(*old), 0),
            "size": np.array(image.shape[:2], np.int32),
            "scale": np.array(
                [new / side for new, side in zip(image.shape[:2], old, strict=True)], np.float32
            ),
            "index": element.get("index", np.int32(0)),
        }
