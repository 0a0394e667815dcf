"""Mask files, whose pixels are numbers and not colours, and the sizes of image files from their headers."""

import contextlib
import io
import os
from collections.abc import Iterator

import numpy as np
from PIL import Image, UnidentifiedImageError

from seaformer_jax import errors


def decode(data: bytes | os.PathLike, name: str) -> np.ndarray:
    """Decodes a mask without any conversion: of a palette image these are the indices.

    Args:
        data: the bytes of the file, or its path.
        name: what error messages call the mask.

    Returns:
        [height, width] of the file's own type, or [height, width, channels] where the file has colours;
        read-only.

    Raises:
        CorruptImageError: the content is no image, is truncated or otherwise broken.
        UserError: the file cannot be read (absent, no permission); never skipped.
    """
    with _opened(data, name) as image:
        return np.asarray(image)


def image_size(data: bytes | os.PathLike, name: str) -> tuple[int, int]:
    """Returns (height, width) of an image; only the header of the file is read. Raises as `decode` does."""
    with _opened(data, name) as image:
        return image.height, image.width


@contextlib.contextmanager
def _opened(data: bytes | os.PathLike, name: str) -> Iterator[Image.Image]:
    try:
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as image:
            yield image
    except UnidentifiedImageError as error:  # Its text is the address of our buffer.
        raise errors.CorruptImageError(f"{name}: cannot identify image file") from error
    except Exception as error:  # Pillow's readers raise OSError, SyntaxError, struct.error and more.
        if isinstance(error, OSError) and error.errno:  # Of the file system.
            raise errors.UserError(f"{name}: cannot be read: {error.strerror}") from error
        raise errors.CorruptImageError(f"{name}: {error or type(error).__name__}") from error
