"""Decodes mask files, whose pixels are numbers instead of colours, and reads image sizes from file headers."""

import contextlib
import io
import os
from collections.abc import Iterator

import numpy as np
from PIL import Image, UnidentifiedImageError

from seaformer_jax import errors, paths


def decode(data: bytes | os.PathLike, name: str) -> np.ndarray:
    """Decodes a mask without any conversion: a palette image gives its indices.

    Args:
        data: The bytes of the file, or its path.
        name: Name of the mask in error messages.

    Returns:
        [height, width] of the file's own type, or [height, width, channels] if the file has colours; read-only.

    Raises:
        CorruptImageError: The content is no image, is truncated or otherwise broken.
        UserError: The file cannot be read (absent, no permission); this is never skipped.
    """
    with _opened(data, name) as image:
        return np.asarray(image)


def image_size(data: bytes | os.PathLike, name: str) -> tuple[int, int]:
    """Returns (height, width) of an image; reads only the header of the file. Raises the errors of `decode`."""
    with _opened(data, name) as image:
        return image.height, image.width


@contextlib.contextmanager
def _opened(data: bytes | os.PathLike, name: str) -> Iterator[Image.Image]:
    """Opens an image file; every error, also of the decoding inside the `with` block, gets the file's name."""
    try:
        with Image.open(_source(data)) as image:
            yield image
    except UnidentifiedImageError as error:  # Pillow's own text only gives the address of our buffer.
        raise errors.CorruptImageError(f"{name}: cannot identify image file") from error
    except Exception as error:  # Pillow's readers raise OSError, SyntaxError, struct.error and more.
        if isinstance(error, OSError) and error.errno:  # The file system sets errno, Pillow's readers do not.
            raise errors.UserError(f"{name}: cannot be read: {errors.reason(error)}") from error
        raise errors.CorruptImageError(f"{name}: {error or type(error).__name__}") from error


def _source(data: bytes | os.PathLike) -> io.BytesIO | os.PathLike:
    """Returns what Pillow can open; of a local file it reads the header only, a bucket sends the whole file."""
    if not isinstance(data, bytes) and not paths.in_bucket(data):
        return data
    return io.BytesIO(data if isinstance(data, bytes) else paths.read_bytes(data))
