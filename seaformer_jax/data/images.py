"""Decodes image files to RGB images; every photo that the package reads passes through here."""

import contextlib
import io
import os
import warnings
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from absl import logging
from PIL import Image, UnidentifiedImageError

from seaformer_jax import errors, paths

try:
    import simplejpeg
except ImportError:  # The extra `input` is not installed.
    simplejpeg = None

# The extensions that torchvision's ImageFolder accepts; compared without case.
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

# The type of `decode`, `decode_pillow` and `decode_either`.
Decode = Callable[[bytes | str | os.PathLike, str], np.ndarray | Image.Image]

# Pillow warns about every file with odd metadata, and a data set may hold thousands of them. The filter is for the
# whole process, not `catch_warnings` around each call: that is not thread-safe, and files are read in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode(data: bytes | str | os.PathLike, name: str) -> np.ndarray:
    """Returns the image of `decode_pillow` as an array uint8 [height, width, 3], RGB, which may be read-only."""
    return np.asarray(decode_either(data, name))


def decode_either(data: bytes | str | os.PathLike, name: str) -> np.ndarray | Image.Image:
    """Returns the image of `decode_pillow`, as an array or a Pillow image: whichever is at hand first.

    A JPEG file becomes an array through simplejpeg, if the extra `input` is installed. The pixels are the same,
    because both use libjpeg-turbo, but they take two thirds of the time, and cropping an array copies nothing.
    """
    content = data if isinstance(data, bytes) else _read(data, name)
    if simplejpeg and content[:3] == b"\xff\xd8\xff":
        # It refuses damaged and odd files. Pillow decides what becomes of them, and of CMYK.
        with contextlib.suppress(ValueError):
            if simplejpeg.decode_jpeg_header(content)[2] != "CMYK":
                return simplejpeg.decode_jpeg(content)
    return decode_pillow(content, name)


def decode_pillow(data: bytes | str | os.PathLike, name: str) -> Image.Image:
    """Decodes an image file of any mode that Pillow reads.

    Alpha is dropped, and palettes, CMYK and grey are converted as `PIL.Image.convert("RGB")` does. 16-bit
    images, grey or colour, keep the high byte; Pillow alone clips 16-bit grey at 255. The EXIF orientation is
    ignored, as in torchvision and timm: a photo that was taken with a rotated camera stays rotated. An animation
    gives its first frame.

    Args:
        data: The bytes of the file, or its path.
        name: Name of the image in error messages.

    Returns:
        A Pillow image of mode RGB. Prefer it to `decode` if Pillow does the next steps with the full photo.

    Raises:
        CorruptImageError: The content is no image, is truncated or otherwise broken.
        UserError: The file cannot be read (absent, no permission, a failing disk); this is never skipped.
    """
    content = data if isinstance(data, bytes) else _read(data, name)
    try:
        with Image.open(io.BytesIO(content)) as image:
            return _to_rgb(image)
    except UnidentifiedImageError as error:  # Pillow's own text only gives the address of our buffer.
        raise errors.CorruptImageError(
            f"{name}: cannot identify image file ({len(content)} bytes)"
        ) from error
    except (
        Exception
    ) as error:  # Pillow's readers raise OSError, SyntaxError, struct.error, IndexError and more.
        raise errors.CorruptImageError(f"{name}: {error or type(error).__name__}") from error


def readable(paths: Iterable[os.PathLike]) -> Iterator[tuple[os.PathLike, np.ndarray]]:
    """Yields (path, image of `decode`) for every file that can be read; the others are logged.

    Raises:
        UserError: After the last file, if none of them can be read.
    """
    count = 0
    for path in paths:
        try:
            image = decode(path, str(path))
        except errors.UserError as error:
            logging.warning("skipped: %s", error)
            continue
        count += 1
        yield path, image
    if not count:
        raise errors.UserError("none of the images can be read; see the log")


def _read(path: str | os.PathLike, name: str) -> bytes:
    try:
        return paths.read_bytes(path)
    except OSError as error:
        raise errors.UserError(f"{name}: cannot be read: {errors.reason(error)}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    """Converts an opened image to RGB and decodes all its pixels."""
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined range; store the image with 8 or 16 bits")
    if image.mode.startswith("I"):  # "I", "I;16" and its byte orders.
        image = Image.fromarray(_high_byte(np.asarray(image)))
    if image.mode != "RGB":
        return image.convert("RGB")
    image.load()  # `convert` would decode it as well, but it would also copy the image.
    return image


def _high_byte(grey: np.ndarray) -> np.ndarray:
    """Returns the upper 8 of 16 bits, as uint8."""
    if grey.min() < 0 or grey.max() > 65535:
        raise ValueError(
            f"grey values {grey.min()}..{grey.max()}; expected unsigned 16-bit values (0..65535)"
        )
    return (grey >> 8).astype(np.uint8)
