"""The transforms of one image and its mask, as grain applies them.

Elements are dictionaries with `image` (uint8 [height, width, 3]) and `label` (uint8 [height, width] of classes
and 255 for ignored pixels); other entries are kept. Normalisation happens on the device, because uint8 images are a
quarter of the bytes to move.
"""

import math
from collections.abc import Mapping
from typing import Any

import grain
import numpy as np

from seaformer_jax.data.labels import IGNORED
from seaformer_jax.data.segmentation import augment as ops


class SegmentationTrainTransform(grain.transforms.RandomMap):
    """Random scale, crop, flip, photometric distortion and padding: the order of the official recipes.

    The source is `train_pipeline` of `seaformer-seg/local_configs/_base_/datasets/ade20k.py`. There, padding comes
    after normalisation, so that padded pixels are 0 in normalised images. Here `size` says which pixels are padding.

    The result's `image` is uint8 [*crop_size, 3]. Its `label` is uint8 [*crop_size], 255 on padding. Its `size`,
    int32 [2], is the height and width of the part without padding, from the upper left corner.

    Args:
        data: `config.data`, or a mapping with its keys `base_scale` (long and short side in pixels) and `crop_size`
            (height, width).
        augment: `config.augment`, or a mapping with its keys `scale_range` (range of the factor on `base_scale`),
            `cat_max_ratio`, `flip` (probability) and `photometric`.
    """

    def __init__(self, data: Mapping[str, Any], augment: Mapping[str, Any]):
        # Store plain values only: grain pickles the transform for its workers.
        self._base = tuple(data["base_scale"])
        self._crop = tuple(data["crop_size"])
        self._range = tuple(augment["scale_range"])
        self._cat_max_ratio = augment["cat_max_ratio"]
        self._flip = augment["flip"]
        self._photometric = augment["photometric"]

    def random_map(self, element: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        # 1. Scale and crop. The crop is chosen on the label map, because it depends on the shares of the classes.
        ratio = rng.uniform(*self._range)
        scale = tuple(int(length * ratio) for length in self._base)
        size = ops.rescaled_size(*element["label"].shape, scale)
        label = ops.resize_label(element["label"], size)
        corner = ops.random_crop_corner(label, self._crop, self._cat_max_ratio, rng)
        label = ops.cut(label, corner, self._crop)
        image = ops.cut(ops.resize_image(element["image"], size), corner, self._crop)
        # 2. Flip; OpenCV needs contiguous memory afterwards.
        if rng.random() < self._flip:
            image, label = image[:, ::-1], label[:, ::-1]
        image = np.ascontiguousarray(image)
        # 3. Distort the colours before padding, so that padding stays black.
        if self._photometric:
            image = ops.photometric_distortion(image, rng)
        # 4. Pad.
        return element | {
            "image": ops.pad(image, self._crop, 0),
            "label": ops.pad(label, self._crop, IGNORED),
            "size": np.array(label.shape, np.int32),
        }


class SegmentationEvalTransform(grain.transforms.Map):
    """Resizes the image once per entry of `eval.scales`, with its aspect ratio kept; the label stays as it is.

    The source is `test_pipeline` of the same files: `Resize`, then, if `size_divisor` is not 0, `ResizeToMultiple`,
    which resizes the resized image again.

    The result has `image` for the first scale and `image_1`, `image_2`, ... for the others, each uint8 [h, w, 3].

    Args:
        evaluation: `config.eval`, or a mapping with its keys `scale` (long and short side in pixels),
            `size_divisor` (0, or the number to whose multiples the sides are rounded up) and `scales` (factors on
            `scale`).
    """

    def __init__(self, evaluation: Mapping[str, Any]):
        scale = tuple(evaluation["scale"])
        self._scales = [tuple(int(length * s) for length in scale) for s in evaluation["scales"]]
        self._divisor = evaluation["size_divisor"]

    def input_sizes(self, height: int, width: int) -> tuple[tuple[int, int], ...]:
        """Returns the (height, width) of every image that `map` makes from one image of this size."""
        sizes = [ops.rescaled_size(height, width, scale) for scale in self._scales]
        return tuple(self._multiple(size) for size in sizes)

    def map(self, element: dict[str, Any]) -> dict[str, Any]:
        image = element["image"]
        # Two resizes, not one to the final size: the official pipeline does so, and the pixels differ.
        sizes = [ops.rescaled_size(*image.shape[:2], scale) for scale in self._scales]
        resized = (ops.resize_image(image, size) for size in sizes)
        if self._divisor:
            resized = (ops.resize_image(r, self._multiple(s)) for r, s in zip(resized, sizes, strict=True))
        return element | {image_name(k): r for k, r in enumerate(resized)}

    def _multiple(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rounds both sides up to multiples of `size_divisor`, if there is one."""
        d = self._divisor or 1
        return math.ceil(size[0] / d) * d, math.ceil(size[1] / d) * d


def image_name(k: int) -> str:
    """Returns the name of the image at scale k: `image`, `image_1`, `image_2`, ..."""
    return f"image_{k}" if k else "image"


def size_name(k: int) -> str:
    """Returns the name of the size of `image_name(k)` without its padding."""
    return f"size_{k}" if k else "size"
