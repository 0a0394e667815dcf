"""Reads and writes state dicts: PyTorch's .pth, .pth.tar and .pt, and .safetensors, which needs no PyTorch."""

import argparse
import os
import pickle
import re
import types
import zipfile
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy
from etils import epath

from convert import swin_names
from seaformer_jax import paths
from seaformer_jax.errors import UserError, reason

_TORCH_SUFFIXES = (".pth", ".pth.tar", ".pt")
_SUFFIXES = (*_TORCH_SUFFIXES, ".safetensors")
# Keys under which training checkpoints store weights, averaged weights first, in the order of the official loader
# (seaformer-cls/timm/models/helpers.py).
_KEYS = ("state_dict_ema", "model_ema", "state_dict", "model")


def read_state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the weights in a file without running any code that the file may contain.

    If the file is a training checkpoint, the weights are the first of `state_dict_ema`, `model_ema`, `state_dict` and
    `model` that exists and is not None. Otherwise the whole file is the state dict. The prefix "module." of parallel
    training is removed, and entries that are not tensors are left out. Official checkpoints of Swin get the names of
    `swin_names.completed`.

    Args:
        path: A .pth, .pth.tar, .pt or .safetensors file.

    Returns:
        Name -> array in PyTorch's layout and the stored dtype; bfloat16, which NumPy lacks, becomes float32.

    Raises:
        UserError: The suffix is unknown; the file does not exist, cannot be read or has no tensors; it holds objects
            other than tensors, plain values, NumPy's floats and `argparse.Namespace`; or it needs PyTorch, which is
            not installed.
    """
    path = epath.Path(path)
    load = _load_torch if _is_torch(path) else _load_safetensors
    # Open the file here first, so that a missing one is the same error in every format.
    try:
        path.open("rb").close()
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)}; expected a file of weights") from error
    content = load(path)
    tensors = {
        name: value
        for name, value in _weights(content).items()
        if isinstance(name, str) and hasattr(value, "__array__")
    }
    if not tensors:
        raise UserError(
            f"no tensors in {path}: found {_describe(content)}; expected a state dict (name -> tensor), "
            f"bare or under {', '.join(_KEYS)}"
        )
    return swin_names.completed(
        {name.removeprefix("module."): _to_numpy(tensor) for name, tensor in tensors.items()}
    )


def write_state_dict(path: str | os.PathLike, state_dict: Mapping[str, np.ndarray]) -> None:
    """Writes a state dict atomically: if writing fails, `path` keeps its old content.

    Args:
        path: A .safetensors file; or a .pth, .pth.tar or .pt file, which then holds a bare dict of tensors for
            `load_state_dict(torch.load(path))`.
        state_dict: Name -> array in PyTorch's layout.

    Raises:
        UserError: The suffix is unknown, the file cannot be written, or it needs PyTorch, which is not installed.
    """
    path = epath.Path(path)
    dump = _dump_torch if _is_torch(path) else _dump_safetensors
    # Not `ascontiguousarray`, which turns the scalar counters of BatchNorm into arrays with one axis.
    arrays = {name: np.array(value, order="C") for name, value in state_dict.items()}
    try:
        with paths.replacing(path) as file:
            dump(arrays, file)
    except OSError as error:
        raise UserError(f"cannot write {path}: {reason(error)}") from error


def beside(path: epath.Path, suffix: str) -> epath.Path:
    """Returns `path` with its suffix replaced, e.g. model.pth.tar -> model.json.

    Raises:
        UserError: The suffix of `path` is not that of a file of weights.
    """
    _is_torch(path)  # Raises the error.
    # The longest suffix that fits, so that none of .pth.tar remains.
    own = max((known for known in _SUFFIXES if path.name.endswith(known)), key=len)
    return path.with_name(path.name.removesuffix(own) + suffix)


def _is_torch(path: epath.Path) -> bool:
    """Returns True for PyTorch's suffixes and False for .safetensors; raises UserError for all others."""
    if not path.name.endswith(_SUFFIXES):
        raise UserError(f"unknown suffix in {path.name!r}; expected one of {', '.join(_SUFFIXES)}")
    return path.name.endswith(_TORCH_SUFFIXES)


def _load_torch(path: epath.Path) -> Any:
    torch = _torch()
    try:
        with torch.serialization.safe_globals(_plain_values()), paths.local_copy(path) as file:
            # In a memory-mapped file the optimizer state is never read. The format before PyTorch 1.6, which is not
            # a zip file, cannot be mapped.
            mapped = zipfile.is_zipfile(file)
            return torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        if blocked := re.search(r"GLOBAL (\S+)", str(error)):
            raise UserError(
                f"{path} holds more than tensors: {blocked[1]} could run code and was not loaded; if you trust the "
                "file, load it with its own code and torch.save only its state dict"
            ) from error
        raise _unreadable(path, "PyTorch") from error
    except Exception as error:  # Damaged bytes can raise almost anything.
        raise _unreadable(path, "PyTorch") from error


def _plain_values() -> list[Any]:
    """Returns the types besides tensors that official checkpoints contain: plain values, which run no code."""
    scalar = np._core.multiarray.scalar
    return [
        argparse.Namespace,  # timm stores its command line.
        # mmseg stores the best score if it was asked to keep the best weights. NumPy 1 used the first of these names.
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        np.dtype,
        np.dtypes.Float64DType,
        np.dtypes.Float32DType,
    ]


def _load_safetensors(path: epath.Path) -> dict[str, np.ndarray]:
    try:
        with paths.local_copy(path) as file:
            return safetensors.numpy.load_file(file)
    except safetensors.SafetensorError as error:
        raise _unreadable(path, "safetensors") from error


def _unreadable(path: epath.Path, kind: str) -> UserError:
    size = len(paths.read_bytes(path))
    return UserError(
        f"{path} ({size} bytes) is no readable {kind} file; it is damaged, cut short or of another kind"
    )


def _weights(content: Any) -> Mapping[str, Any]:
    """Returns the state dict in the content of a file; {} if there is none."""
    if not isinstance(content, Mapping):
        return {}
    content = next((content[key] for key in _KEYS if content.get(key) is not None), content)
    return content if isinstance(content, Mapping) else {}


def _describe(content: Any) -> str:
    """Describes the content of a file for error messages."""
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    return f"the keys {', '.join(map(str, list(content)[:10]))}" if content else "nothing"


def _to_numpy(tensor: Any) -> np.ndarray:
    """Returns a NumPy array that stays valid when the file changes; hence the copy of a mapped tensor."""
    if isinstance(tensor, np.ndarray):
        return tensor.astype(np.float32) if tensor.dtype == ml_dtypes.bfloat16 else tensor
    tensor = tensor.detach()
    return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy().copy()


def _dump_torch(arrays: dict[str, np.ndarray], file: Any) -> None:
    torch = _torch()
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, file)


def _dump_safetensors(arrays: dict[str, np.ndarray], file: Any) -> None:
    file.write(safetensors.numpy.save(arrays))


def _torch() -> types.ModuleType:
    try:
        import torch
    except ImportError as error:
        raise UserError('.pth and .pt files need PyTorch: pip install "seaformer-jax[convert]"') from error
    return torch
