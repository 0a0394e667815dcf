"""The folder that a bundle is written to: it is complete or absent, and never takes the place of other files."""

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence

from etils import epath

from convert.bundle import CARD, Bundle, files_below
from seaformer_jax import paths
from seaformer_jax.errors import UserError


@contextlib.contextmanager
def writing(out: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary folder, which is renamed to `out` or copied into a bucket on success, and always removed.

    A bundle that already exists at `out` is replaced at the end. A folder with other files is never replaced.

    Raises:
        UserError: `out` holds something other than a bundle, or cannot be written to.
    """
    out = check_out(out)
    if paths.in_bucket(out):
        with tempfile.TemporaryDirectory() as scratch:
            yield pathlib.Path(scratch)
            _replace_in_bucket(out, pathlib.Path(scratch))
        return
    # Beside `out`, because a rename cannot cross file systems.
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if out.exists():  # An older bundle, or an empty folder.
            shutil.rmtree(out)
        temporary.rename(out)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write to --out {out}: {reason}; choose another folder") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace_in_bucket(out: epath.Path, folder: pathlib.Path) -> None:
    if out.exists():
        out.rmtree()
    for file in files_below(folder):
        (out / file.relative_to(folder)).write_bytes(file.read_bytes())


@contextlib.contextmanager
def reading(folders: Sequence[str]) -> Iterator[list[Bundle]]:
    """Yields the bundles in `folders`; runtimes open local files, so those in buckets are copied for the time."""
    with contextlib.ExitStack() as stack:
        yield [Bundle.open(stack.enter_context(paths.local_copy(paths.of(folder)))) for folder in folders]


def check_out(out: str | os.PathLike) -> pathlib.Path | epath.Path:
    """Returns `out` as an absolute path, or as a path in a bucket.

    Raises:
        UserError: A bundle cannot be written there, because of other files or because the folder is read-only.
    """
    out = paths.of(out) if paths.in_bucket(out) else pathlib.Path(os.path.abspath(out))
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; expected a folder to create")
    if out.exists() and any(out.iterdir()) and not (out / CARD).exists():
        raise UserError(f"--out {out} holds files other than a bundle; choose another folder")
    if paths.in_bucket(out):
        return out
    # The bundle is made beside `out`, in the first of its parents that exists.
    parent = next(parent for parent in out.parents if os.path.exists(parent))
    if not (os.path.isdir(parent) and os.access(parent, os.W_OK | os.X_OK)):
        raise UserError(
            f"cannot write to --out {out}: {parent} is no folder to write into; choose another folder"
        )
    return out
