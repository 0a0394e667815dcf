"""Image files to RGB images: the one place of the project that decodes."""

import io
import os
import warnings
from collections.abc import Callable

import numpy as np
from PIL import Image, UnidentifiedImageError

from seaformer_jax import errors

# The extensions that torchvision's ImageFolder takes for images; compared without case.
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

# `decode` or `decode_pillow`.
Decode = Callable[[bytes | str | os.PathLike, str], np.ndarray | Image.Image]

# Pillow warns anew for every file with odd metadata, and a data set may hold thousands. A filter for the
# process, not `catch_warnings` around each call: files are read in threads, and that is not thread-safe.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode(data: bytes | str | os.PathLike, name: str) -> np.ndarray:
    """What `decode_pillow` decodes, as an array uint8 [height, width, 3], RGB; read-only."""
    return np.asarray(decode_pillow(data, name))


def decode_pillow(data: bytes | str | os.PathLike, name: str) -> Image.Image:
    """Decodes an image file of any mode that Pillow reads.

    Alpha is dropped, and palettes, CMYK and grey are converted as `PIL.Image.convert("RGB")` does. 16-bit
    images keep the high byte, grey as well as colour; Pillow alone clips 16-bit grey at 255. The EXIF
    orientation is ignored, as in torchvision and timm: a photograph from a turned camera stays turned. Of an
    animation the first frame is decoded.

    Args:
        data: the bytes of the file, or its path.
        name: what error messages call the image.

    Returns:
        A Pillow image of mode RGB. An array of a whole photograph costs as much as half of its decoding: who
        goes on with Pillow makes one of the result.

    Raises:
        CorruptImageError: the content is no image, is truncated or otherwise broken.
        UserError: the file cannot be read (absent, no permission, a failing disk); never skipped.
    """
    content = data if isinstance(data, bytes) else _read(data, name)
    try:
        with Image.open(io.BytesIO(content)) as image:
            return _to_rgb(image)
    except UnidentifiedImageError as error:  # Its text is the address of our buffer.
        raise errors.CorruptImageError(
            f"{name}: cannot identify image file ({len(content)} bytes)"
        ) from error
    except (
        Exception
    ) as error:  # Pillow's readers raise OSError, SyntaxError, struct.error, IndexError and more.
        raise errors.CorruptImageError(f"{name}: {error or type(error).__name__}") from error


def _read(path: str | os.PathLike, name: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise errors.UserError(f"{name}: cannot be read: {error.strerror}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined range; store the image with 8 or 16 bits")
    if image.mode.startswith("I"):  # "I", "I;16" and its byte orders
        image = Image.fromarray(_high_byte(np.asarray(image)))
    if image.mode != "RGB":
        return image.convert("RGB")
    image.load()  # `convert` would do so, but copy the image, too.
    return image


def _high_byte(grey: np.ndarray) -> np.ndarray:
    if grey.min() < 0 or grey.max() > 65535:
        raise ValueError(f"grey values {grey.min()}..{grey.max()}, expected 16 bits without sign (0..65535)")
    return (grey >> 8).astype(np.uint8)
