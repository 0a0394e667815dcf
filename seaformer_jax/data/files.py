"""Finds the folders and image files of a data set; errors say what was found and what was expected."""

import fnmatch
import os
import pathlib
from collections.abc import Iterator, Sequence

from etils import epath

from seaformer_jax import errors, paths
from seaformer_jax.data import images


def root_folder(root: str | os.PathLike, layout: str) -> epath.Path:
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
    path = paths.of(root)
    if not path.is_dir():
        raise errors.UserError(f"data.root {str(root)!r}: no such folder; expected {path}/{layout}")
    return path


def subfolder(folder: epath.Path, name: str, keys: str) -> epath.Path:
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


def image_files(folder: epath.Path, name: str = "") -> list[str]:
    """Returns the paths, relative to `folder`, of the images below `folder/name`.

    The order is that of torchvision: by folder, then by file name. Links are followed, as in `_walk`.
    """
    found = []
    for directory, names in sorted(_walk(os.fspath(folder / name))):
        relative = os.path.relpath(directory, folder)
        prefix = "" if relative == os.curdir else relative
        found += [os.path.join(prefix, n) for n in sorted(names) if _is_image(n)]
    return found


def matching_images(pattern: str) -> list[epath.Path]:
    """Returns the images that match `pattern`, in alphabetical order.

    Hidden files and folders match only if the pattern names them.

    Args:
        pattern: An image, a folder, which includes its subfolders, or a glob pattern. Leading folders that exist are
            taken literally, so that `photos [2024]/*.jpg` finds the images of that folder.
    """
    path = paths.of(pattern)
    if path.exists():
        found = _expand(os.fspath(path), ("**",)) if path.is_dir() else {os.fspath(path)}
    else:
        start = next(parent for parent in path.parents if parent.is_dir())
        found = _expand(os.fspath(start), path.relative_to(start).parts)
    return [epath.Path(file) for file in sorted(found) if _is_image(file)]


def _expand(start: str, parts: tuple[str, ...]) -> set[str]:
    """Returns the files below the folder `start` that match a pattern, as `glob.glob` does, but without link loops.

    Args:
        start: Folder, taken literally.
        parts: The names and patterns between the slashes; "**" stands for any folders.
    """
    part, rest = parts[0], parts[1:]
    if part == "**":
        folders = [folder for folder, _ in _walk(start) if not _hidden(os.path.relpath(folder, start))]
        return {path for folder in folders for path in _expand(folder, rest or ("*",))}
    folders, names = _entries(start)
    found = [
        name
        for name in fnmatch.filter(folders if rest else names, part)
        if _hidden(part) or not _hidden(name)
    ]
    found = [os.path.join(start, name) for name in found]
    return {path for folder in found for path in _expand(folder, rest)} if rest else set(found)


def _hidden(path: str) -> bool:
    return any(part.startswith(".") for part in pathlib.Path(path).parts)


def _walk(folder: str, above: tuple[epath.Path, ...] = ()) -> Iterator[tuple[str, list[str]]]:
    """Yields (folder, names of its files) for `folder` and every folder below it, also behind symbolic links.

    A link to a folder that contains the link is not followed. Its images would be listed again and again, and a link
    from the folder of one class to the folder of all classes would give its label to the images of the others.

    Args:
        folder: Where to start.
        above: Real paths of the folders between the start and `folder`.
    Raises:
        UserError: A folder cannot be read.
    """
    real = paths.real(folder)
    if any(path.is_relative_to(real) for path in above):
        return
    folders, names = _entries(folder)
    yield folder, names
    for name in folders:
        yield from _walk(os.path.join(folder, name), (*above, real))


def _entries(folder: str) -> tuple[list[str], list[str]]:
    try:
        return paths.entries(folder)
    except OSError as error:
        raise errors.UserError(f"{folder}: cannot be read: {errors.reason(error)}") from error


def _is_image(name: str) -> bool:
    return name.lower().endswith(images.IMAGE_EXTENSIONS)


def listing(folder: epath.Path) -> str:
    """Returns the names of at most eight entries of a folder, as text."""
    folders, names = paths.entries(folder)
    return some(sorted([f"{name}/" for name in folders] + names))


def some(names: Sequence[str]) -> str:
    """Joins at most eight names and says how many more there are."""
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more if names else "nothing"
