"""Crops and flips of one image, on the host.

The training crop is RandomResizedCropAndInterpolation of `seaformer-cls/timm/data/transforms.py`. The evaluation
crop is that of `timm/data/transforms_factory.py` (`transforms_imagenet_eval`), whose geometry is torchvision's
`Resize` and `CenterCrop`. Every random decision comes from the generator that the caller passes.

Images are Pillow images of mode RGB, or arrays until they are cropped: converting the full photo from one to the
other costs more than cropping it.
"""

import math

import numpy as np
from PIL import Image

from seaformer_jax.errors import UserError, suggest

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_ATTEMPTS = 10


def check_interpolation(name: str, *, allow_random: bool) -> str:
    """Returns the name of an interpolation if it is known.

    Args:
        name: Name from the config.
        allow_random: Whether `random` is accepted, in addition to `bilinear` and `bicubic`.

    Raises:
        UserError: The name is unknown.
    """
    known = [*RESAMPLING, "random"] if allow_random else [*RESAMPLING]
    if name not in known:
        raise UserError(
            f"Unknown interpolation {name!r}; expected one of {', '.join(known)}.{suggest(name, known)}"
        )
    return name


def resampling(name: str, rng: np.random.Generator) -> Image.Resampling:
    """Returns the Pillow filter of a name; `random` is bilinear or bicubic with equal probability."""
    if name == "random":
        name = "bicubic" if rng.random() < 0.5 else "bilinear"
    return RESAMPLING[name]


def random_crop_box(
    height: int, width: int, rng: np.random.Generator, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Draws a crop of random area and aspect ratio.

    The area is uniform in `scale` (share of the image), width / height is log-uniform in `ratio`, and the position
    is uniform among those inside the image. A draw that does not fit is repeated, up to ten draws in all. After
    ten failures the result is the largest centred crop whose aspect ratio is within `ratio`.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        rng: Generator of all draws.
        scale: Bounds of the crop's share of the image's area.
        ratio: Bounds of the crop's width / height.

    Returns:
        (top, left, height, width) in pixels. A draw that rounds to an empty crop counts as a failure, as in
        torchvision (timm would crash on it).
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(_ATTEMPTS):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    return _central_box(height, width, ratio)


def _central_box(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int, int, int]:
    """Returns (top, left, height, width) of the largest centred crop whose aspect ratio is within `ratio`."""
    h, w = height, width
    if width / height < ratio[0]:
        h = round(width / ratio[0])
    elif width / height > ratio[1]:
        w = round(height * ratio[1])
    return (height - h) // 2, (width - w) // 2, h, w


def random_resized_crop(
    image: np.ndarray | Image.Image,
    rng: np.random.Generator,
    size: int,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    interpolation: str = "random",
) -> Image.Image:
    """Crops at random (see `random_crop_box`) and resizes the crop to a square.

    Args:
        image: RGB, a Pillow image or an array uint8 [height, width, 3].
        rng: Generator of all draws.
        size: Side of the result in pixels.
        scale: Bounds of the crop's share of the image's area.
        ratio: Bounds of the crop's width / height.
        interpolation: `bilinear` or `bicubic` (Pillow's, which antialias when shrinking), or `random`: one of the
            two for each image.

    Returns:
        An RGB Pillow image [size, size].
    """
    box = random_crop_box(*size_of(image), rng, scale, ratio)
    # Not `resize(box=...)`: its filter would also read the pixels around the crop.
    return crop(image, box).resize((size, size), resampling(interpolation, rng))


def size_of(image: np.ndarray | Image.Image) -> tuple[int, int]:
    """Returns height and width in pixels."""
    return image.size[::-1] if isinstance(image, Image.Image) else image.shape[:2]


def crop(image: np.ndarray | Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """Returns the part of an image at (top, left, height, width) as a Pillow image."""
    top, left, height, width = box
    if isinstance(image, Image.Image):
        return image.crop((left, top, left + width, top + height))
    # Becoming a Pillow image copies the pixels, so the array is cropped first.
    return Image.fromarray(image[top : top + height, left : left + width])


def _as_pillow(image: np.ndarray | Image.Image) -> Image.Image:
    return image if isinstance(image, Image.Image) else Image.fromarray(image)


def flip(image: Image.Image, rng: np.random.Generator, probability: float) -> Image.Image:
    """Mirrors the image left to right, with the given probability."""
    if rng.random() < probability:
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image


def resize_and_center_crop(
    image: np.ndarray | Image.Image,
    size: int,
    crop_fraction: float = 0.875,
    interpolation: str = "bicubic",
) -> np.ndarray:
    """Returns the evaluation crop: the central size x size of the resized image.

    The shorter side is resized to floor(size / crop_fraction). The longer side is truncated to whole pixels, and the
    corner of the crop is rounded half to even, as in torchvision.

    Args:
        image: RGB, a Pillow image or an array uint8 [height, width, 3].
        size: Side of the result in pixels.
        crop_fraction: Share of the resized image's shorter side that the crop keeps, in (0, 1].
        interpolation: `bilinear` or `bicubic`.

    Returns:
        uint8 [size, size, 3].
    """
    image = _as_pillow(image)
    # 1. The size of the resized image, with the image's aspect ratio.
    width, height = image.size
    short = math.floor(size / crop_fraction)
    long = int(short * max(height, width) / min(height, width))
    shape = (short, long) if width <= height else (long, short)
    # 2. Resize, then crop; Python's `round` rounds half to even.
    left, top = (round((side - size) / 2) for side in shape)
    resized = image.resize(shape, RESAMPLING[interpolation])
    return np.asarray(resized.crop((left, top, left + size, top + size)))
