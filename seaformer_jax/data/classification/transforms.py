"""The transforms of one training or evaluation image, as grain applies them.

Elements are dictionaries. `image` (RGB, a Pillow image or an array uint8 [height, width, 3]) and `label` are
replaced; other entries are kept. Normalisation, mixing and erasing happen on the device (`data/on_device`), because
uint8 images are a quarter of the bytes to move.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import grain
import numpy as np
from PIL import Image

from seaformer_jax.data.classification import augment as ops
from seaformer_jax.data.classification.randaugment import RandAugment


def policy(augment: Mapping[str, Any], mean: Sequence[float]) -> RandAugment | None:
    """Returns the RandAugment policy of a config, or None if it has none.

    Args:
        augment: `config.augment`, or a mapping with its keys `rand_augment` and `interpolation`.
        mean: Channel means of images in [0, 1]; geometric operations fill with this colour.

    Raises:
        UserError: The RandAugment string is malformed.
    """
    fill = tuple(min(255, round(255 * value)) for value in mean)
    text = augment["rand_augment"]
    return RandAugment.parse(text, fill, augment["interpolation"]) if text else None


class TrainTransform(grain.transforms.RandomMap):
    """Random resized crop, flip, RandAugment: the order of timm's `transforms_imagenet_train`.

    The result's `image` is uint8 [image_size, image_size, 3], its `label` an int32 scalar.

    Args:
        image_size: Side of the result in pixels.
        augment: `config.augment`, or a mapping with its keys `crop_scale`, `crop_ratio`, `interpolation`, `flip`,
            `rand_augment` and `on_device`; other keys are not read. With `on_device` only the crop happens here.
        mean: Channel means of images in [0, 1]; geometric operations fill with this colour.

    Raises:
        UserError: The interpolation is unknown, or the RandAugment string is malformed.
    """

    def __init__(self, image_size: int, augment: Mapping[str, Any], mean: Sequence[float]):
        # Store plain values only: grain pickles the transform for its workers.
        self._size = image_size
        self._scale = tuple(augment["crop_scale"])
        self._ratio = tuple(augment["crop_ratio"])
        self._interpolation = ops.check_interpolation(augment["interpolation"], allow_random=True)
        self._flip = 0.0 if augment["on_device"] else augment["flip"]
        self._policy = None if augment["on_device"] else policy(augment, mean)

    def random_map(self, element: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        image = ops.random_resized_crop(
            element["image"], rng, self._size, self._scale, self._ratio, self._interpolation
        )
        image = self.augment(image, rng)
        return element | {"image": np.asarray(image), "label": np.int32(element["label"])}

    def augment(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Returns the image after flip and RandAugment, unless the device does them."""
        image = ops.flip(image, rng, self._flip)
        return self._policy(image, rng) if self._policy else image


class WindowTransform(grain.transforms.RandomMap):
    """Random crop, for images that the device resizes, mirrors and augments; the boxes are those of `TrainTransform`.

    The result's `image` is the crop as it is stored, of a mapped file without a copy. `stack` copies it into a
    window, in which each crop has room, and adds `size` int32 [2], its height and width there.

    Args:
        short_side: The largest short side of an image.
        augment: `config.augment`, or a mapping with its keys `crop_scale` and `crop_ratio`.

    Attributes:
        window: Height and width of a window.
    """

    def __init__(self, short_side: int, augment: Mapping[str, Any]):
        self._scale, self._ratio = tuple(augment["crop_scale"]), tuple(augment["crop_ratio"])
        # Of the longest crop, the short side is that of the image, or rounded to it.
        longest = max(self._ratio[1], 1 / self._ratio[0])
        self.window = (short_side, math.floor(longest * (short_side + 0.5) + 0.5))

    def random_map(self, element: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        image, turn = np.asarray(element["image"]), -1 if element["upright"] else 1
        # An upright image lies: its height is along the second axis.
        corner_and_sides = ops.random_crop_box(*image.shape[:2][::turn], rng, self._scale, self._ratio)
        (top, left), (height, width) = corner_and_sides[:2][::turn], corner_and_sides[2:][::turn]
        crop = image[top : top + height, left : left + width]
        if (
            image.base is None
        ):  # The memory of a decoded image is free for the next one; a mapped file has none.
            crop = crop.copy()
        return element | {
            "image": crop,
            "upright": np.bool_(element["upright"]),
            "label": np.int32(element["label"]),
        }

    def stack(self, rows: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
        """Returns a batch: each crop in the corner of its window, `size`, and the other entries stacked."""
        windows = np.zeros((len(rows), *self.window, 3), np.uint8)
        for window, row in zip(windows, rows, strict=True):
            height, width, _ = row["image"].shape
            window[:height, :width] = row["image"]
        sizes = np.array([row["image"].shape[:2] for row in rows], np.int32)
        others = {name: np.stack([row[name] for row in rows]) for name in rows[0] if name != "image"}
        return {"image": windows, "size": sizes, **others}


class EvalTransform(grain.transforms.Map):
    """The central crop of `augment.resize_and_center_crop`; `label` becomes an int32 scalar.

    Args:
        image_size: Side of the result in pixels.
        crop_fraction: Share of the resized image's shorter side that the crop keeps, in (0, 1].
        interpolation: `bilinear` or `bicubic`.

    Raises:
        UserError: The interpolation is unknown.
    """

    def __init__(self, image_size: int, crop_fraction: float = 0.875, interpolation: str = "bicubic"):
        self._size = image_size
        self._fraction = crop_fraction
        self._interpolation = ops.check_interpolation(interpolation, allow_random=False)

    def map(self, element: dict[str, Any]) -> dict[str, Any]:
        image = ops.resize_and_center_crop(element["image"], self._size, self._fraction, self._interpolation)
        return element | {"image": image, "label": np.int32(element["label"])}
