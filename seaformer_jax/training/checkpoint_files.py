"""Reads one checkpoint as NumPy arrays, and tells damage from trouble that may pass.

Every process reads by itself, without waiting for others, so that `Checkpoints.restore` can compare how it went.
"""

import contextlib
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax import nnx

from seaformer_jax.errors import UserError, summary
from seaformer_jax.paths import failure, in_bucket
from seaformer_jax.training import orbax_s3
from seaformer_jax.types import Tree

Result = TypeVar("Result")

# What a file system raises when a file is gone or is no file; any other error may be gone at the next try.
_GONE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
# What tensorstore and XLA say of trouble that may pass, as words of their messages (Abseil's status codes).
_NOT_NOW = re.compile(
    "PERMISSION_DENIED|UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|ABORTED|CANCELLED|UNAUTHENTICATED"
)
_COMMITTED = "commit_success.txt"  # Orbax adds this file to a checkpoint in a bucket once it is complete.


class Damaged(Exception):
    """Files of a checkpoint are missing, incomplete or changed; the checkpoint before it is to be used."""


class Unavailable(Exception):
    """A checkpoint cannot be read now, though it may be whole: the disk, the network or memory failed."""


def atomicity(folder: epath.Path) -> ocp.options.AtomicityOptions:
    """Returns how orbax completes a checkpoint: it renames a folder, or in a bucket, which cannot, adds a file."""
    orbax_s3.enable()
    modes = ocp.options.AtomicityMode
    return ocp.options.AtomicityOptions(modes.COMMIT_FILE if in_bucket(folder) else modes.ATOMIC_RENAME)


def finished(folder: epath.Path) -> list[int]:
    """Returns the steps of the complete checkpoints in `folder`, in ascending order; [] if there is no folder."""
    # Only digits: orbax gives unfinished checkpoints other names.
    steps = [int(path.name) for path in folder.glob("*") if path.name.isdigit()]
    return sorted(
        step for step in steps if not in_bucket(folder) or (folder / str(step) / _COMMITTED).exists()
    )


def unfinished(folder: epath.Path) -> list[epath.Path]:
    """Returns what saves that were killed or failed left behind in `folder`."""
    if not in_bucket(folder):
        return list(epath.Path(folder).glob("*.orbax-checkpoint-tmp*"))
    return [path for path in folder.glob("*") if path.name.isdigit() and not (path / _COMMITTED).exists()]


def checksums(state: Tree) -> dict[str, int]:
    """Returns the CRC-32 of every array of `state`, by its path."""
    return {
        path: zlib.crc32(np.ascontiguousarray(value)) for path, value in _flat(jax.device_get(state)).items()
    }


def read_state(folder: epath.Path, template: Tree) -> Tree:
    """Returns the state in the checkpoint `folder`, in the structure of `template`, as NumPy arrays.

    Args:
        folder: Folder of one checkpoint, `<workdir>/checkpoints/<step>`.
        template: A state with the expected names, shapes and dtypes.
    Raises:
        UserError: The checkpoint belongs to another model or optimiser.
        Damaged, Unavailable: It cannot be read.
    """
    path = folder / "state"
    with _reader() as reader:
        # Names and shapes first: a checkpoint of another run is whole, and must not be called damaged.
        stored = _attempt(lambda: reader.metadata(path).tree)
        _check_same(folder, _flat(stored), _flat(template))
        shapes = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), template)
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
        args = ocp.args.PyTreeRestore(item=shapes, restore_args=as_numpy)
        state = _attempt(lambda: reader.restore(path, args=args))
    _check_sums(folder, state)
    return state


def read_json(folder: epath.Path, name: str) -> Any:
    """Returns what the checkpoint stores as JSON under `name`: "clock" or "checksums".

    Raises:
        Damaged, Unavailable: It cannot be read.
    """
    return _attempt(lambda: json.loads((folder / name / "metadata").read_text()))


def read_metrics(folder: epath.Path) -> dict[str, float]:
    """Returns the validation metrics of the checkpoint `folder`; {} if it was saved without an evaluation.

    Raises:
        Damaged, Unavailable: They cannot be read.
    """
    path = folder / "metrics" / "metrics"
    return _attempt(lambda: dict(json.loads(path.read_text()))) if path.exists() else {}


def read_weights(folder: epath.Path, use_ema: bool) -> Tree:
    """Returns `params` and `batch_stats` of the checkpoint `folder`, averaged if `use_ema` and if there are averages.

    Raises:
        Damaged, Unavailable: They cannot be read.
    """
    path = folder / "state"
    with _reader() as reader:
        tree = _attempt(lambda: reader.metadata(path).tree)
        keys = ["ema"] if use_ema and tree.get("ema") else ["params", "batch_stats"]
        wanted = {key: tree[key] for key in keys}
        # As NumPy arrays: the devices that they were saved from may not exist here.
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
        args = ocp.args.PyTreeRestore(item=wanted, restore_args=as_numpy, partial_restore=True)
        state = _attempt(lambda: reader.restore(path, args=args))
    _check_sums(folder, state)
    return nnx.restore_int_paths(state.get("ema", state))


@contextlib.contextmanager
def _reader() -> Iterator[ocp.PyTreeCheckpointHandler]:
    orbax_s3.enable()
    # Not a Checkpointer, which looks for the description of a whole checkpoint in a folder that is part of one.
    with contextlib.closing(ocp.PyTreeCheckpointHandler()) as reader:
        yield reader


def _attempt(read: Callable[[], Result]) -> Result:
    """Calls `read` and sorts what it raises into `Damaged` and `Unavailable`."""
    try:
        return read()
    except MemoryError as error:
        raise Unavailable("out of memory") from error
    except OSError as error:
        kind = Damaged if isinstance(error, _GONE) else Unavailable
        raise kind(reason_of(error)) from error
    except Exception as error:  # Orbax and tensorstore raise whatever the damage leads to.
        kind = Unavailable if failure(error) or _NOT_NOW.search(str(error)) else Damaged
        raise kind(reason_of(error)) from error


def _check_same(folder: epath.Path, stored: dict[str, Any], expected: dict[str, Any]) -> None:
    shapes = [{path: tuple(array.shape) for path, array in arrays.items()} for arrays in (stored, expected)]
    differing = sorted({path for path, _ in shapes[0].items() ^ shapes[1].items()})
    if differing:
        path = differing[0]
        raise UserError(
            f"{folder} is the checkpoint of another model or optimiser: {len(differing)} arrays differ, e.g. {path}: "
            f"found {shapes[0].get(path, 'none')}, expected {shapes[1].get(path, 'none')}. Nothing was changed; use "
            "the config of that run, or a new --workdir"
        )


def _check_sums(folder: epath.Path, state: Tree) -> None:
    """Compares the arrays with the checksums stored beside them; checkpoints of version 0.1 have none."""
    if not (folder / "checksums").exists():
        return
    stored = read_json(folder, "checksums")
    for path, value in checksums(state).items():
        if stored.get(path) != value:
            raise Damaged(f"the checksum of {path} differs: its bytes changed on disk")


def _flat(tree: Tree) -> dict[str, Any]:
    return ocp.tree.to_flat_dict(tree, sep="/")


def reason_of(error: Exception) -> str:
    """Returns what the system said, e.g. `No space left on device`, or the type and first line of another error."""
    code = re.search(r"os_error_code='(\d+)'", str(error))  # In tensorstore's words.
    if code or (isinstance(error, OSError) and error.strerror):
        return os.strerror(int(code[1])) if code else error.strerror
    return summary(error).partition(" [tensorstore_spec=")[0]  # Tensorstore appends its whole configuration.


def not_now(folder: epath.Path, reason: object) -> UserError:
    """Returns the error for a checkpoint that may be whole, but cannot be read."""
    return UserError(
        f"{folder} cannot be read now ({reason}); nothing was changed, run the same command again"
    )
