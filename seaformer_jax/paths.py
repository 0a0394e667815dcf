"""Paths that users give: local ones and buckets (`gs://`, `s3://`), all of them as `etils.epath.Path`.

`epath` reads and writes buckets through fsspec's packages gcsfs and s3fs, of the extras `gcs` and `s3`. This module
has what is ours: the check of a path, and what a bucket lacks: appending, renaming and files that a C library opens.
"""

import contextlib
import importlib.util
import io
import os
import pathlib
import tempfile
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from etils import epath

from seaformer_jax.errors import UserError, summary

if TYPE_CHECKING:
    import fsspec

# Scheme -> (package that reads such paths, our extra that installs it).
_PACKAGES = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}

# With TensorFlow installed, `epath` would read buckets through it, and it lists and caches in other ways.
os.environ.setdefault("EPATH_USE_TF", "false")


def of(path: str | os.PathLike) -> epath.Path:
    """Returns what a user gave as a path, with a leading `~` expanded; a bucket is known to be there.

    Raises:
        UserError: It is in a bucket that cannot be used, or the package for such buckets is not installed.
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
    _check_bucket(os.fspath(path))
    return epath.Path(path)


def _check_bucket(path: str) -> None:
    """Raises UserError if the bucket of `path` does not exist or cannot be read.

    Without this check a bucket with a misspelt name would be created, and one that cannot be reached seem empty.
    """
    store, key = _store(path)
    bucket = key.partition("/")[0]
    if not bucket:
        raise UserError(f"{path} names no bucket; expected e.g. {path}BUCKET/runs/tiny")
    try:
        if not store.exists(key):
            store.info(bucket)
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no bucket {bucket!r}; create it or correct the path") from error
    except Exception as error:  # Each package has its own exceptions for the network and for credentials.
        raise UserError(f"{path}: {failure(error)}") from error


def _store(path: str) -> "tuple[fsspec.AbstractFileSystem, str]":
    """Returns the file system of fsspec for a bucket, and the bucket and key in it."""
    import fsspec  # Here, because most commands work on local files.

    # Listings must be fresh, because tensorstore writes into the same buckets without fsspec's knowledge.
    for scheme in _PACKAGES:
        fsspec.config.conf.setdefault(scheme, {})["use_listings_cache"] = False
    return fsspec.core.url_to_fs(path)


def failure(error: BaseException) -> str:
    """Returns in one line what went wrong with a bucket, or "" if `error` was not raised by the packages for them."""
    frames = traceback.walk_tb(error.__traceback__)
    modules = {frame.f_globals.get("__name__", "").partition(".")[0] for frame, _ in frames}
    if modules.isdisjoint(package for package, _ in _PACKAGES.values()):
        return ""
    return f"the bucket cannot be used ({summary(error)}); check the network, its name and your credentials"


def in_bucket(path: str | os.PathLike) -> bool:
    """Returns whether `path` is in a bucket."""
    return os.fspath(path).startswith(tuple(f"{scheme}://" for scheme in _PACKAGES))


def real(path: str | os.PathLike) -> epath.Path:
    """Returns the absolute path behind symbolic links.

    `epath.Path.resolve` follows no links and takes a bucket for a folder of the working folder.
    """
    return epath.Path(path if in_bucket(path) else os.path.realpath(path))


def read_bytes(path: str | os.PathLike) -> bytes:
    """Returns the content of a file, without the cost of an `epath.Path`: it reads every image of a data set."""
    if in_bucket(path):
        store, key = _store(os.fspath(path))
        return store.cat_file(key)  # One request; opening a file asks for its size first.
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
        store, key = _store(os.fspath(folder))
        for entry in store.ls(key, detail=True):
            name = (
                entry["name"].removeprefix(key).strip("/")
            )  # "" for the empty file that may stand for the folder.
            (folders if entry["type"] == "directory" else names).append(name)
        return folders, [name for name in names if name]
    with os.scandir(folder) as found:
        for entry in found:
            # Only links cost a request to the file system; a data set has a million files.
            is_folder = os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()
            (folders if is_folder else names).append(entry.name)
    return folders, names


@contextlib.contextmanager
def replacing(path: epath.Path) -> Iterator[BinaryIO]:
    """Yields a file that takes the place of `path` at the end; after an error `path` keeps its old content."""
    if in_bucket(path):
        buffer = io.BytesIO()
        yield buffer
        path.write_bytes(buffer.getvalue())  # A bucket shows a file once it is complete.
        return
    # In the same folder: renaming is atomic only within one file system.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


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
