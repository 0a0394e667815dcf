"""The runtimes: a module each, that writes a model in the runtime's format and runs it.

| format | module | how it is written | how it is run | fp16 is | int8 |
| --- | --- | --- | --- | --- | --- |
| onnx | `runtimes.onnx` | PyTorch's exporter | ONNX Runtime | weights | yes |
| litert | `runtimes.litert` | litert-torch, ai-edge-quantizer | LiteRT with XNNPACK | weights | yes |
| executorch | `runtimes.executorch` | torch.export, XNNPACK | ExecuTorch | arithmetic, two casts apart | yes |
| ncnn | `runtimes.ncnn` | pnnx | ncnn | arithmetic, on ARMv8.2 | no |

Each has the constants and functions of `Runtime`. A runtime is imported inside functions, and PyTorch in `export`
alone: who only runs bundles needs neither PyTorch nor the other runtimes.
"""

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from convert.bundle import FORMATS, Bundle
from seaformer_jax.errors import UserError, suggest

if TYPE_CHECKING:
    from torch import nn

# Images float32 [1, H, W, 3] -> what the model file gives, channels last.
Network = Callable[[np.ndarray], np.ndarray]

# What each format needs to be written and run: the modules that are imported, and the packages that hold them.
_MODULES = {
    "onnx": {"onnx": "onnx", "onnxscript": "onnxscript", "onnxruntime": "onnxruntime"},
    "litert": {
        "litert_torch": "litert-torch",
        "ai_edge_litert": "ai-edge-litert",
        "ai_edge_quantizer": "ai-edge-quantizer",
    },
    "executorch": {"executorch": "executorch", "torchao": "torchao"},
    "ncnn": {"ncnn": "ncnn", "pnnx": "pnnx"},
}


class Graph(NamedTuple):
    """What is to be exported.

    Attributes:
        model: Of `deploy.deploy`: images [1, 3, H, W] -> logits [1, classes] or logits8 [1, classes, h, w].
        task: "classification" or "segmentation".
        output: What the model file is to give, see `Bundle.output`.
        input_size: H and W.
    """

    model: "nn.Module"
    task: str
    output: str
    input_size: tuple[int, int]


class Runtime(Protocol):
    """What the module of a runtime has.

    Attributes:
        LAYOUT: Of the model's input.
        OUTPUT_LAYOUTS: Of "logits8" and of "logits" of segmentation.
        PRECISIONS: Those that it can be written in.
        LABELS_IN_GRAPH: Whether its graphs may end in labels.
    """

    LAYOUT: str
    OUTPUT_LAYOUTS: dict[str, str]
    PRECISIONS: tuple[str, ...]
    LABELS_IN_GRAPH: bool

    def export(self, graph: Graph, folders: Mapping[str, Path], calibration: Sequence[np.ndarray]) -> None:
        """Writes the model in each precision (key) into a folder (value).

        Args:
            graph: what to write; in float32.
            folders: precision -> an existing folder for `MODEL_FILES`.
            calibration: images as the model takes them, float32 [1, H, W, 3]; of int8.
        """

    def load(self, bundle: Bundle, threads: int = 1) -> Network:
        """Returns a function that runs the model of `bundle`; its result is the caller's to keep."""

    def outside(self, bundle: Bundle) -> dict[str, int]:
        """Operators that the runtime's fast path does not take -> how many of them there are."""


def find(name: str) -> Runtime:
    """Returns the module of a format.

    Raises:
        UserError: unknown, or its packages are not installed.
    """
    if name not in FORMATS:
        raise UserError(f"--format {name}; expected one of {', '.join(FORMATS)}.{suggest(name, FORMATS)}")
    needed = {"torch": "torch", **_MODULES[name]}
    missing = [package for module, package in needed.items() if not importlib.util.find_spec(module)]
    if missing:
        raise UserError(
            f"{name} needs {', '.join(missing)}, which this Python lacks: pip install 'seaformer-jax[{name}]'"
        )
    return importlib.import_module(f"convert.runtimes.{name}")


def packages(name: str) -> tuple[str, ...]:
    """Returns the packages that write and run a format, as pip calls them."""
    return tuple(_MODULES[name].values())


def run_module(name: str, module: str) -> object:
    """Imports `module`, which the format `name` is run with; UserError where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"{name} bundles are run with {module.split('.')[0]}, which cannot be imported ({error}): "
            f"pip install 'seaformer-jax[{name}]'"
        ) from error


def channels_first(images: np.ndarray) -> np.ndarray:
    """[1, H, W, C] -> [1, C, H, W], contiguous."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def channels_last(output: np.ndarray, layout: str) -> np.ndarray:
    """The output of a model file with its channels last, a copy; `layout` is `Bundle.output_layout`."""
    return np.array(output.transpose(0, 2, 3, 1) if layout == "NCHW" else output)


def upsampled(graph: Graph) -> "nn.Module":
    """The model up to the logits that the file is to give, channels first."""
    from torch import nn

    if graph.task == "classification" or graph.output == "logits8":
        return graph.model
    return nn.Sequential(graph.model, nn.Upsample(graph.input_size, mode="bilinear", align_corners=False))
