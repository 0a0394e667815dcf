"""Paths that users give: local ones and buckets (`gs://`, `s3://`), all of them as `etils.epath.Path`.

`epath` reads and writes buckets through fsspec's packages gcsfs and s3fs, of the extras `gcs` and `s3`. This module
has what is ours: the check of a path, and what a bucket lacks: appending, renaming and files that a C library opens.
"""

import contextlib
import importlib.util
import os
import pathlib
import tempfile
from collections.abc import Iterator

from etils import epath

from seaformer_jax.errors import UserError

# Scheme -> (package that reads such paths, our extra that installs it).
_PACKAGES = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}

# With TensorFlow installed, `epath` would read buckets through it, and it lists and caches in other ways.
os.environ.setdefault("EPATH_USE_TF", "false")


def of(path: str | os.PathLike) -> epath.Path:
    """Returns what a user gave as a path, with a leading `~` expanded.

    Raises:
        UserError: It is in a bucket of an unknown kind, or the package for such buckets is not installed.
    """
    scheme, found, _ = os.fspath(path).partition("://")
    if not found:
        return epath.Path(path).expanduser()
    if scheme not in _PACKAGES:
        raise UserError(f"{os.fspath(path)}: unknown kind of path; expected a local path, gs:// or s3://")
    package, extra = _PACKAGES[scheme]
    if importlib.util.find_spec(package) is None:
        raise UserError(
            f'{os.fspath(path)} needs the package {package}: pip install "seaformer-jax[{extra}]"'
        )
    return epath.Path(path)


def in_bucket(path: str | os.PathLike) -> bool:
    """Returns whether `path` is in a bucket."""
    return os.fspath(path).startswith(tuple(f"{scheme}://" for scheme in _PACKAGES))


def real(path: str | os.PathLike) -> epath.Path:
    """Returns the absolute path behind symbolic links, which `epath.Path.resolve` does not follow."""
    return epath.Path(path if in_bucket(path) else os.path.realpath(path))


def read_bytes(path: str | os.PathLike) -> bytes:
    """Returns the content of a file; reads a local one without the cost of an `epath.Path`, for a million images."""
    if in_bucket(path):
        return epath.Path(path).read_bytes()
    with open(path, "rb") as file:
        return file.read()


def entries(folder: str | os.PathLike) -> tuple[list[str], list[str]]:
    """Returns the names of the folders and of the files in `folder`, in any order; links are followed.

    Raises:
        OSError: `folder` cannot be read.
    """
    folders, names = [], []
    if in_bucket(folder):
        # Not `iterdir`, after which each name costs a request to learn what it is.
        for _, folders, names in epath.Path(folder).walk():
            return folders, [name for name in names if name]  # "" marks the folder itself.
        return folders, names
    with os.scandir(folder) as found:
        for entry in found:
            # Only links cost a request to the file system; a data set has a million files.
            is_folder = os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()
            (folders if is_folder else names).append(entry.name)
    return folders, names


def append(path: epath.Path, text: str) -> None:
    """Appends `text` to a file; a bucket takes whole files only, and gets the file again."""
    if in_bucket(path):
        path.write_text((path.read_text() if path.exists() else "") + text)
        return
    with path.open("a") as file:
        file.write(text)


@contextlib.contextmanager
def local_copy(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields `path`, or a temporary copy of a file or folder in a bucket, for what opens local files only."""
    if not in_bucket(path):
        yield pathlib.Path(path)
        return
    path = epath.Path(path)
    with tempfile.TemporaryDirectory() as scratch:
        copy = pathlib.Path(scratch) / path.name
        _download(path, copy)
        yield copy


def _download(path: epath.Path, copy: pathlib.Path) -> None:
    if not path.is_dir():
        copy.write_bytes(path.read_bytes())
        return
    copy.mkdir()
    for names in entries(path):
        for name in names:
            _download(path / name, copy / name)


class Spool:
    """A folder for files that grow, or that libraries write: local, or a copy of one in a bucket.

    A bucket takes whole files only. Files in a bucket are therefore written to a temporary folder, and `sync` copies
    those that changed since it was last called. What was written after the last `sync` is lost with the process.

    Attributes:
        folder: The folder to write into, a local one.
    """

    def __init__(self, folder: str | os.PathLike):
        self._target, self._scratch, self._copied = epath.Path(folder), None, {}
        if in_bucket(folder):
            self._scratch = tempfile.TemporaryDirectory()
        self.folder = pathlib.Path(self._scratch.name if self._scratch else folder)

    def sync(self) -> None:
        """Copies the files that changed into the bucket."""
        if not self._scratch:
            return
        for file in sorted(self.folder.rglob("*")):
            if file.is_file() and self._copied.get(file) != (stamp := _stamp(file)):
                (self._target / file.relative_to(self.folder).as_posix()).write_bytes(file.read_bytes())
                self._copied[file] = stamp

    def close(self) -> None:
        """Copies what changed, and removes the temporary folder."""
        try:
            self.sync()
        finally:
            if self._scratch:
                self._scratch.cleanup()


def _stamp(file: pathlib.Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns
