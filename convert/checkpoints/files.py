"""State dicts in files: PyTorch's .pth, .pth.tar and .pt, and .safetensors, which needs no PyTorch."""

import argparse
import contextlib
import os
import pathlib
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

from seaformer_jax.errors import UserError

_TORCH_SUFFIXES = (".pth", ".pth.tar", ".pt")
_SUFFIXES = (*_TORCH_SUFFIXES, ".safetensors")
# Where a training checkpoint keeps its weights, averaged ones first: the order of the official loader
# (seaformer-cls/timm/models/helpers.py).
_KEYS = ("state_dict_ema", "model_ema", "state_dict", "model")


def read_state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the weights in a file without running code that the file may hold.

    Of a training checkpoint it takes the first of `state_dict_ema`, `model_ema`, `state_dict` and `model`
    that is there and not None; anything else is taken for the state dict itself. The prefix "module." of
    parallel training is removed, and entries that are not tensors are left out.

    Args:
        path: a .pth, .pth.tar, .pt or .safetensors file.
    Returns:
        Name -> array in PyTorch's layout and the stored dtype; bfloat16, which NumPy lacks, becomes float32.
    Raises:
        UserError: unknown suffix, no such file, not readable, no tensors, or objects other than tensors, plain
          values, NumPy's floats and `argparse.Namespace`; PyTorch is not installed and the suffix is one of its own.
    """
    path = pathlib.Path(path)
    load = _load_torch if _is_torch(path) else _load_safetensors
    try:
        path.open("rb").close()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; expected a file of weights") from error
    content = load(path)
    tensors = {name: value for name, value in _weights(content).items() if hasattr(value, "__array__")}
    if not tensors:
        raise UserError(
            f"no tensors in {path}: found {_describe(content)}; expected a state dict (name -> tensor), "
            f"bare or under {', '.join(_KEYS)}"
        )
    return {name.removeprefix("module."): _to_numpy(tensor) for name, tensor in tensors.items()}


def write_state_dict(path: str | os.PathLike, state_dict: Mapping[str, np.ndarray]) -> None:
    """Writes `state_dict` so that `path` holds either the whole of it or what it held before.

    Args:
        path: .safetensors, or .pth, .pth.tar or .pt for a bare dict of tensors, as PyTorch's
          `load_state_dict(torch.load(path))` takes it.
        state_dict: name -> array in PyTorch's layout.
    Raises:
        UserError: unknown suffix, the place cannot be written to, or PyTorch is needed and not installed.
    """
    path = pathlib.Path(path)
    dump = _dump_torch if _is_torch(path) else _dump_safetensors
    # Not `ascontiguousarray`: it gives the scalar counters of BatchNorm an axis.
    arrays = {name: np.array(value, order="C") for name, value in state_dict.items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            dump(arrays, file)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def beside(path: pathlib.Path, suffix: str) -> pathlib.Path:
    """Returns `path` with another suffix (model.pth.tar -> model.json); UserError where it is no file of weights."""
    _is_torch(path)
    own = max((known for known in _SUFFIXES if path.name.endswith(known)), key=len)
    return path.with_name(path.name.removesuffix(own) + suffix)


def _is_torch(path: pathlib.Path) -> bool:
    if not path.name.endswith(_SUFFIXES):
        raise UserError(f"unknown kind of file {path.name!r}; expected a name in {', '.join(_SUFFIXES)}")
    return path.name.endswith(_TORCH_SUFFIXES)


def _load_torch(path: pathlib.Path) -> Any:
    torch = _torch()
    try:
        with torch.serialization.safe_globals(_plain_values()):
            # Mapped, the optimizer's share is never read; files from before PyTorch 1.6 cannot be mapped.
            mapped = zipfile.is_zipfile(path)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        if blocked := re.search(r"GLOBAL (\S+)", str(error)):
            raise UserError(
                f"{path} holds more than tensors: {blocked[1]} could run code and was not loaded; where the "
                "file is trusted, load it with its own code and torch.save only its state dict"
            ) from error
        raise _unreadable(path, "PyTorch") from error
    except Exception as error:  # Damaged bytes end in almost any exception.
        raise _unreadable(path, "PyTorch") from error


def _plain_values() -> list[Any]:
    """What official checkpoints hold besides tensors: attributes and numbers, and no code that runs."""
    scalar = np._core.multiarray.scalar
    return [
        argparse.Namespace,  # timm's command line
        # The best score, where mmseg was asked to keep its weights; NumPy 1 wrote the first of the two names.
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        np.dtype,
        np.dtypes.Float64DType,
        np.dtypes.Float32DType,
    ]


def _load_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(path)
    except safetensors.SafetensorError as error:
        raise _unreadable(path, "safetensors") from error


def _unreadable(path: pathlib.Path, kind: str) -> UserError:
    size = path.stat().st_size
    return UserError(
        f"{path} ({size} bytes) is no readable {kind} file; it is damaged, cut short or of another kind"
    )


def _weights(content: Any) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        return {}
    content = next((content[key] for key in _KEYS if content.get(key) is not None), content)
    return content if isinstance(content, Mapping) else {}


def _describe(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    return f"the keys {', '.join(map(str, list(content)[:10]))}" if content else "nothing"


def _to_numpy(tensor: Any) -> np.ndarray:
    """A NumPy array that does not depend on the file staying as it is."""
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
