"""Prepares images for an exported model: from files, or seeded ones."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from PIL import Image

from convert.bundle import Bundle
from convert.labels.boxes import Photograph
from seaformer_jax import paths
from seaformer_jax.data import files, images, shapes
from seaformer_jax.data.classification.augment import RESAMPLING
from seaformer_jax.data.segmentation import augment as resizing
from seaformer_jax.errors import UserError

_SEED = 0


class Preparation(NamedTuple):
    """How an image of any size becomes the input of a model.

    Attributes:
        task: "classification", "segmentation" or "detection".
        size: H and W of the input.
        mean, std: Mean and standard deviation of the three channels, for images in [0, 1].
        inside: True if the exported model normalises its input.
        crop_fraction: Side of the central crop / side of the resized image; for classifiers, as in their evaluation.
        interpolation: Filter of the resize, a key of `augment.RESAMPLING`; for classifiers, as in their evaluation.
        input_type: Type of the exported model's input, see `Bundle`.
    """

    task: str
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    inside: bool
    crop_fraction: float
    interpolation: str
    input_type: str = "float32"

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> "Preparation":
        """Returns the preparation that the card of a bundle describes."""
        return cls(
            bundle.task,
            bundle.input_size,
            bundle.mean,
            bundle.std,
            bundle.normalized_inside,
            bundle.preprocessing["crop_fraction"],
            bundle.preprocessing["interpolation"],
            bundle.input_type,
        )

    @classmethod
    def of(cls, card: Mapping[str, Any], **fields: Any) -> "Preparation":
        """Returns a preparation with `fields`; the rest comes from the JSON beside the weights.

        Without that JSON the rest is as in the official evaluation: crop fraction 0.875, bicubic.
        """
        return cls(
            crop_fraction=card.get("crop_fraction", 0.875),
            interpolation=card.get("interpolation", "bicubic"),
            **fields,
        )

    def fit(self, image: np.ndarray) -> np.ndarray:
        """Brings an image uint8 [h, w, 3] to the input size, uint8 [H, W, 3].

        Segmentation resizes the whole image to H x W; classification resizes it and crops the centre. Detection
        resizes it as far as it fits, with its aspect ratio kept, and fills the rest with the mean colour.
        """
        if self.task == "segmentation":
            return resizing.resize_image(image, self.size)
        if self.task == "detection":
            filled = np.empty((*self.size, 3), np.uint8)
            filled[:] = np.rint(255 * np.array(self.mean))
            rows, columns = self.photograph(image).size
            filled[:rows, :columns] = resizing.resize_image(image, (rows, columns))
            return filled
        return _centre(image, self.size, self.crop_fraction, self.interpolation)

    def photograph(self, image: np.ndarray) -> Photograph:
        """Returns where `fit` puts the image uint8 [h, w, 3] of a detector."""
        height, width = image.shape[:2]
        factor = min(self.size[0] / height, self.size[1] / width)
        size = tuple(max(int(side * factor + 0.5), 1) for side in (height, width))
        return Photograph(size, (size[0] / height, size[1] / width))

    def read(self, path: epath.Path) -> np.ndarray:
        """Decodes an image and brings it to the input size; UserError if it cannot be decoded."""
        return self.fit(images.decode(path, str(path)))

    def described(self) -> dict[str, Any]:
        """Returns `Bundle.preprocessing`."""
        resize = {"classification": "centre crop", "segmentation": "stretch", "detection": "pad"}[self.task]
        cropped = resize == "centre crop"
        return {
            "resize": resize,
            "crop_fraction": self.crop_fraction if cropped else 1.0,
            "interpolation": self.interpolation if cropped else "bilinear",
            "channel_order": "RGB",
            "value_range": (0, 255) if self.input_type == "uint8" else (0, 1),
        }

    def trained(self, image: np.ndarray) -> np.ndarray:
        """Turns uint8 [H, W, 3] into the input of the trained model: float32 [1, H, W, 3], normalised."""
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        return (_scaled(image) - mean) / std

    def exported(self, image: np.ndarray) -> np.ndarray:
        """Turns uint8 [H, W, 3] into the input of the exported model, [1, H, W, 3] of `input_type`."""
        if self.input_type == "uint8":
            return image[None]
        return _scaled(image) if self.inside else self.trained(image)


def seeded(size: tuple[int, int]) -> list[np.ndarray]:
    """Returns two drawn images and one of noise, uint8 [H, W, 3] each; they are the same on every call."""
    # Square drawings of the larger side, resized to the input.
    drawn = shapes.Shapes("val", 2, max(size), _SEED)
    noise = np.random.default_rng(_SEED).integers(0, 256, (*size, 3), np.uint8)
    return [*(resizing.resize_image(drawn[index]["image"], size) for index in range(len(drawn))), noise]


def of_folder(flag: str, folder: str, most: int) -> list[epath.Path]:
    """Returns the paths of the images in a folder and its subfolders, at most `most`, evenly spread over the list.

    Args:
        flag: Name of the flag that gave the folder, for error messages.
        folder: Path of the folder, which exists.
        most: Largest number of images.

    Raises:
        UserError: The folder has no image.
    """
    path = paths.of(folder)
    found = files.image_files(path)
    if not found:
        raise UserError(
            f"--{flag} {folder}: no image (found {files.listing(path)}); expected files that end in "
            f"{', '.join(images.IMAGE_EXTENSIONS)}"
        )
    # Evenly spread, because files are sorted and those of one class or video are neighbours.
    chosen = np.unique(np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int))
    return [path / found[index] for index in chosen]


def _scaled(image: np.ndarray) -> np.ndarray:
    """Returns uint8 [H, W, 3] as float32 [1, H, W, 3] in [0, 1]."""
    return image[None].astype(np.float32) / 255


def _centre(image: np.ndarray, size: tuple[int, int], fraction: float, interpolation: str) -> np.ndarray:
    """Resizes and crops like `resize_and_center_crop` of classification; the input need not be square."""
    (height, width), least = image.shape[:2], [math.floor(side / fraction) for side in size]
    # Resize until the image just covers `least`. Integer division, because torchvision truncates the longer side.
    rows, columns = max((least[0], least[0] * width // height), (least[1] * height // width, least[1]))
    resized = Image.fromarray(image).resize((columns, rows), RESAMPLING[interpolation])
    left, top = round((columns - size[1]) / 2), round((rows - size[0]) / 2)
    return np.asarray(resized.crop((left, top, left + size[1], top + size[0])))
