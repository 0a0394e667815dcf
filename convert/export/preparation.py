"""Images as an exported model takes them: from files, and seeded ones."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from seaformer_jax.data import files, images, shapes
from seaformer_jax.data.classification.augment import RESAMPLING
from seaformer_jax.data.segmentation import augment as resizing
from seaformer_jax.errors import UserError

_SEED = 0


class Preparation(NamedTuple):
    """From an image of any size to the input of a model.

    Attributes:
        task: "classification" or "segmentation".
        size: H and W of the input.
        mean, std: Of the three channels, of images in [0, 1].
        inside: The exported model normalises.
        crop_fraction, interpolation: Of classifiers, as their evaluation has them.
    """

    task: str
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    inside: bool
    crop_fraction: float
    interpolation: str

    @classmethod
    def of(cls, card: Mapping[str, Any], **fields: Any) -> "Preparation":
        """`fields`, and the rest from the JSON beside the weights, or as in the official evaluation."""
        return cls(
            crop_fraction=card.get("crop_fraction", 0.875),
            interpolation=card.get("interpolation", "bicubic"),
            **fields,
        )

    def fit(self, image: np.ndarray) -> np.ndarray:
        """uint8 [h, w, 3] -> uint8 [H, W, 3]: segmentation resizes to H x W, classifiers keep the centre."""
        if self.task == "segmentation":
            return resizing.resize_image(image, self.size)
        return _centre(image, self.size, self.crop_fraction, self.interpolation)

    def trained(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] -> what the trained model takes: float32 [1, H, W, 3], normalised."""
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        return (_scaled(image) - mean) / std

    def exported(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] -> what the exported model takes: float32 [1, H, W, 3]."""
        return _scaled(image) if self.inside else self.trained(image)


def seeded(size: tuple[int, int]) -> list[np.ndarray]:
    """Two drawn images and one of noise, uint8 [H, W, 3] each; the same ones every time."""
    drawn = shapes.Shapes("val", 2, max(size), _SEED)
    noise = np.random.default_rng(_SEED).integers(0, 256, (*size, 3), np.uint8)
    return [*(resizing.resize_image(drawn[index]["image"], size) for index in range(len(drawn))), noise]


def of_folder(flag: str, folder: str, most: int) -> list[np.ndarray]:
    """Decodes the images in a folder and those below it, or `most` of them, evenly spread: uint8 [h, w, 3] each.

    Raises:
        UserError: there is no such folder or no image in it, or one that cannot be decoded; it names the flag.
    """
    path = pathlib.Path(folder)
    if not path.is_dir():
        raise UserError(f"--{flag} {folder}: no such folder")
    found = files.image_files(path)
    if not found:
        raise UserError(
            f"--{flag} {folder}: no image (found {files.listing(path)}); expected files that end in "
            f"{', '.join(images.IMAGE_EXTENSIONS)}"
        )
    chosen = np.unique(np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int))
    return [images.decode(path / found[index], str(path / found[index])) for index in chosen]


def _scaled(image: np.ndarray) -> np.ndarray:
    return image[None].astype(np.float32) / 255


def _centre(image: np.ndarray, size: tuple[int, int], fraction: float, interpolation: str) -> np.ndarray:
    """`resize_and_center_crop` of classification, for inputs that need not be square."""
    (height, width), least = image.shape[:2], [math.floor(side / fraction) for side in size]
    # The image is just large enough for `least`; whole numbers, as torchvision truncates the longer side.
    rows, columns = max((least[0], least[0] * width // height), (least[1] * height // width, least[1]))
    resized = Image.fromarray(image).resize((columns, rows), RESAMPLING[interpolation])
    left, top = round((columns - size[1]) / 2), round((rows - size[0]) / 2)
    return np.asarray(resized.crop((left, top, left + size[1], top + size[0])))
