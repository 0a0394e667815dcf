"""Finds the folders and image files of a data set; errors say what was found and what was expected."""

import os
import pathlib
from collections.abc import Sequence

from seaformer_jax import errors
from seaformer_jax.data import images


def root_folder(root: str | os.PathLike, layout: str) -> pathlib.Path:
    """Returns `data.root` as a path.

    Args:
        root: Absolute or relative path; it may start with "~".
        layout: What the folder should contain, for the error message.

    Raises:
        UserError: The path is empty or not a folder.
    """
    if not os.fspath(root):
        raise errors.UserError(
            f"data.root is empty; set --config.data.root to the folder that holds {layout}"
        )
    path = pathlib.Path(root).expanduser()
    if not path.is_dir():
        raise errors.UserError(f"data.root {str(root)!r}: no such folder; expected {path}/{layout}")
    return path


def subfolder(folder: pathlib.Path, name: str, keys: str) -> pathlib.Path:
    """Returns `folder / name`.

    Args:
        folder: Existing folder.
        name: Name of the folder in it.
        keys: The config keys to correct, for the error message.

    Raises:
        UserError: There is no such folder.
    """
    if not (folder / name).is_dir():
        raise errors.UserError(f"{folder}: no folder {name!r} (found {listing(folder)}); correct {keys}")
    return folder / name


def image_files(folder: pathlib.Path, name: str = "") -> list[str]:
    """Returns the paths, relative to `folder`, of the images below `folder/name`.

    The order is that of torchvision: by folder, then by file name.
    """
    found = []
    for directory, _, names in sorted(os.walk(folder / name, followlinks=True)):
        relative = os.path.relpath(directory, folder)
        prefix = "" if relative == os.curdir else relative
        found += [
            os.path.join(prefix, n) for n in sorted(names) if n.lower().endswith(images.IMAGE_EXTENSIONS)
        ]
    return found


def listing(folder: pathlib.Path) -> str:
    """Returns the names of at most eight entries of a folder, as text."""
    return some(sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir()))


def some(names: Sequence[str]) -> str:
    """Joins at most eight names and says how many more there are."""
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more if names else "nothing"
