"""Finds the runtime of a format: the module that writes models in that format and runs them.

| format | module | how it is written | how it is run | fp16 is | int8 |
| --- | --- | --- | --- | --- | --- |
| onnx | `runtimes.onnx` | PyTorch's exporter | ONNX Runtime | weights | yes |
| litert | `runtimes.litert` | litert-torch, ai-edge-quantizer | LiteRT with XNNPACK | arithmetic, on ARMv8.2 | yes |
| executorch | `runtimes.executorch` | torch.export, XNNPACK | ExecuTorch | arithmetic, but two casts | yes |
| ncnn | `runtimes.ncnn` | pnnx | ncnn | arithmetic, on ARMv8.2 | no |
| openvino | `runtimes.openvino` | PyTorch's exporter to ONNX, OpenVINO | OpenVINO | weights | yes |
| mnn | `runtimes.mnn` | PyTorch's exporter to ONNX, MNN's converter | MNN | arithmetic, on ARMv8.2 | no |
| coreml | `runtimes.coreml` | torch.export, coremltools | Core ML, on Apple's systems only | arithmetic | no |
| web | `runtimes.web` | PyTorch's exporter | ONNX Runtime Web, in a browser | weights | yes |

Where fp16 is "weights", only the file is in half precision, and the arithmetic is in float32. Each module has the
constants and functions of `base.Runtime`.
"""

import importlib
import importlib.util
from collections.abc import Callable

from convert.bundle import FORMATS, NATIVE, Bundle
from convert.runtimes.base import Network, Runtime
from seaformer_jax.errors import UserError, suggest

_ONNX = {"onnx": "onnx", "onnxscript": "onnxscript", "onnxruntime": "onnxruntime"}
# Format -> the modules that writing and running it imports, each with the package that contains it.
_MODULES = {
    "onnx": _ONNX,
    "litert": {
        "litert_torch": "litert-torch",
        "ai_edge_litert": "ai-edge-litert",
        "ai_edge_quantizer": "ai-edge-quantizer",
    },
    "executorch": {"executorch": "executorch", "torchao": "torchao"},
    "ncnn": {"ncnn": "ncnn", "pnnx": "pnnx"},
    "openvino": {**_ONNX, "openvino": "openvino"},
    "mnn": {"onnx": "onnx", "onnxscript": "onnxscript", "MNN": "MNN"},
    "coreml": {"coremltools": "coremltools"},
    "web": _ONNX,
}


def find(name: str) -> Runtime:
    """Returns the module of the format `name`, with everything installed that exporting needs.

    Raises:
        UserError: The format is unknown, or its packages are not installed.
    """
    if name not in FORMATS:
        raise UserError(f"--format {name}; expected one of {', '.join(FORMATS)}.{suggest(name, FORMATS)}")
    # `find_spec` looks a package up without importing it.
    needed = {"torch": "torch", **_MODULES[name]}
    missing = [package for module, package in needed.items() if not importlib.util.find_spec(module)]
    if missing:
        raise UserError(
            f"{name} needs {', '.join(missing)}, which this Python lacks: pip install 'seaformer-jax[{extra(name)}]'"
        )
    return _module(name)


def extra(name: str) -> str:
    """Returns the extra of setup.cfg that installs a format's packages."""
    return "onnx" if name == "web" else name


def load(bundle: Bundle, threads: int = 1) -> Network:
    """Returns a function that runs the model of `bundle`; imports that runtime alone, and nothing that exports.

    Raises:
        UserError: The runtime cannot be imported, or does not exist for this machine.
    """
    check(bundle)
    return _module(bundle.format).load(bundle, threads)


def check(bundle: Bundle) -> None:
    """Raises UserError if the runtime of `bundle` does not exist for this machine."""
    if not _module(bundle.format).RUNS_HERE:
        raise UserError(
            f"{bundle.folder} is a {bundle.format} bundle, which does not run on this machine; run it as its README "
            f"says, or export the weights to one of {', '.join(NATIVE)}"
        )


def choices(fits: Callable[[Runtime], bool]) -> str:
    """Returns the formats whose modules `fits` holds for, separated by commas."""
    return ", ".join(name for name in FORMATS if fits(_module(name)))


def _module(name: str) -> Runtime:
    return importlib.import_module(f"convert.runtimes.{name}")


def packages(name: str) -> tuple[str, ...]:
    """Returns the names, as pip knows them, of the packages that write and run a format."""
    return tuple(_MODULES[name].values())


def run_module(name: str, module: str) -> object:
    """Imports and returns `module`, which runs the format `name`.

    Raises:
        UserError: The module cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"{name} bundles are run with {module.split('.')[0]}, which cannot be imported ({error}): "
            f"pip install 'seaformer-jax[{extra(name)}]'"
        ) from error
