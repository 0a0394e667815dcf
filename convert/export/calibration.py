"""Keeps the images that int8 is calibrated on apart from those that it is scored on."""

import hashlib
from collections.abc import Sequence

from etils import epath

from seaformer_jax import paths
from seaformer_jax.data import files
from seaformer_jax.errors import UserError


def check_apart(calibration: Sequence[epath.Path], validation: str) -> None:
    """Raises UserError if a calibration image is also a validation image, under whatever name.

    The ranges of int8 would then be fitted to the very images that decide whether int8 is good enough.

    Args:
        calibration: Paths of the calibration images.
        validation: Folder of the validation images.
    """
    folder = paths.of(validation)
    scored = {_digest(folder / name) for name in files.image_files(folder)}
    shared = [path for path in calibration if _digest(path) in scored]
    if shared:
        raise UserError(
            f"{len(shared)} of {len(calibration)} calibration images are also in --validation {validation}, such as "
            f"{shared[0]}; int8 would be scored on what it was fitted to; calibrate on training images"
        )


def _digest(path: epath.Path) -> bytes:
    return hashlib.sha256(paths.read_bytes(path)).digest()
