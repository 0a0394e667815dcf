"""The operators of a LiteRT model and their times, from the profiler in the C library of its wheel.

LiteRT's Python package does not call that profiler, and the wheel has no headers. The C API is used as in
on_device/runner/litert.cpp.
"""

import ctypes
import importlib.util
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from convert.bundle import Bundle
from convert.runtimes import base
from seaformer_jax.errors import UserError

_CPU, _ELEMENTS = 1, {"float32": 1, "uint8": 3}  # Values of the C API's enumerations.
_FIRST = ctypes.c_size_t(0)  # The first and only signature, or input.
_RELEASE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: None)
# A line of the summary: kind, start, first and mean milliseconds, shares, memory, number of calls.
_ROW = re.compile(
    r"^\s*(\S.*?)\s+[\d.]+\s+[\d.]+\s+([\d.]+)\s+[\d.]+%\s+[\d.]+%\s+[\d.]+\s+\d+\s", re.MULTILINE
)


class _Layout(ctypes.Structure):
    _fields_ = [
        ("rank", ctypes.c_uint),
        ("dimensions", ctypes.c_int32 * 8),
        ("strides", ctypes.c_uint32 * 8),
    ]


class _Type(ctypes.Structure):
    _fields_ = [("element", ctypes.c_int), ("layout", _Layout)]


def rows(bundle: Bundle, warmup: int, runs: int, threads: int) -> list[tuple[str, float]]:
    """Returns the kind and the mean milliseconds of each operator, in the order of their runs.

    Args:
        bundle: A bundle of LiteRT.
        warmup, runs: Number of runs that are not timed, and of those that are.
        threads: Threads of the runtime.
    """
    library = _Library()
    environment = library.new("CreateEnvironment", 0, None)
    compiled = _compiled(library, environment, str(bundle.model), threads)
    sides = (_input(library, environment, compiled, bundle), _outputs(library, environment, compiled, bundle))
    arguments = [word for buffers in sides for word in (ctypes.c_size_t(len(buffers)), buffers)]
    profiler = library.new("CompiledModelGetProfiler", compiled)
    for number in range(warmup + runs):
        if number == warmup:
            library.call("StartProfiler", profiler)
        library.call("RunCompiledModel", compiled, _FIRST, *arguments)
    library.call("StopProfiler", profiler)
    summary = library.new("GetProfileSummary", profiler, compiled)
    return parsed(ctypes.string_at(summary.value).decode())


def parsed(summary: str) -> list[tuple[str, float]]:
    """Returns the kinds and the mean milliseconds in the first table of LiteRT's summary, "Run Order"."""
    table = re.split(r"^=+ .* =+$", summary, flags=re.MULTILINE)[1]
    return [(kind.removeprefix("Delegate/"), float(mean)) for kind, mean in _ROW.findall(table)]


class _Library:
    """The C library; its functions return a status."""

    def __init__(self):
        (folder,) = importlib.util.find_spec("ai_edge_litert").submodule_search_locations
        self._library = ctypes.CDLL(str(pathlib.Path(folder) / "libLiteRt.so"))

    def call(self, name: str, *arguments: Any) -> None:
        if status := getattr(self._library, f"LiteRt{name}")(*arguments):
            raise UserError(f"LiteRt{name} failed with status {status}; expected 0; export the model again")

    def new(self, name: str, *arguments: Any) -> ctypes.c_void_p:
        """Calls a function whose last argument is the address of a pointer, and returns that pointer."""
        pointer = ctypes.c_void_p()
        self.call(name, *arguments, ctypes.byref(pointer))
        return pointer


def _compiled(library: _Library, environment: ctypes.c_void_p, path: str, threads: int) -> ctypes.c_void_p:
    """Returns the model, compiled for the CPU with profiling."""
    model = library.new("CreateModelFromFile", environment, path.encode())
    options = library.new("CreateOptions")
    library.call("SetOptionsHardwareAccelerators", options, _CPU)
    # Options are text in TOML, under the name of what they are for.
    texts = {
        b"xnnpack": b"num_threads = %d\n" % threads,
        b"runtime_options_string": b"enable_profiling = true\n",
    }
    buffers = {name: ctypes.create_string_buffer(text) for name, text in texts.items()}
    for name, buffer in buffers.items():
        library.call("AddOpaqueOptions", options, library.new("CreateOpaqueOptions", name, buffer, _RELEASE))
    return library.new("CreateCompiledModel", environment, model, options)


def _input(
    library: _Library, environment: ctypes.c_void_p, compiled: ctypes.c_void_p, bundle: Bundle
) -> ctypes.Array:
    """Returns a buffer for the input, in an array."""
    type_ = _Type(_ELEMENTS[bundle.input_type])
    library.call("GetCompiledModelInputTensorLayout", compiled, _FIRST, _FIRST, ctypes.byref(type_.layout))
    needs = library.new("GetCompiledModelInputBufferRequirements", compiled, _FIRST, _FIRST)
    return _array([_buffer(library, environment, type_, needs)])


def _outputs(
    library: _Library, environment: ctypes.c_void_p, compiled: ctypes.c_void_p, bundle: Bundle
) -> ctypes.Array:
    """Returns a buffer for each output, in an array."""
    count = len(base.names(bundle.output))
    layouts, buffers = (_Layout * count)(), []
    sizes = ctypes.c_size_t(count), layouts, ctypes.c_bool(True)
    library.call("GetCompiledModelOutputTensorLayouts", compiled, _FIRST, *sizes)
    for number, layout in enumerate(layouts):
        place = ctypes.c_size_t(number)
        needs = library.new("GetCompiledModelOutputBufferRequirements", compiled, _FIRST, place)
        buffers.append(_buffer(library, environment, _Type(_ELEMENTS["float32"], layout), needs))
    return _array(buffers)


def _buffer(
    library: _Library, environment: ctypes.c_void_p, type_: _Type, needs: ctypes.c_void_p
) -> ctypes.c_void_p:
    return library.new("CreateManagedTensorBufferFromRequirements", environment, ctypes.byref(type_), needs)


def _array(pointers: Sequence[ctypes.c_void_p]) -> ctypes.Array:
    return (ctypes.c_void_p * len(pointers))(*(pointer.value for pointer in pointers))
