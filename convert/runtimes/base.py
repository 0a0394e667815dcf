"""The interface of a runtime module, and helpers that the modules share.

Every module imports its runtime inside functions, so that running a bundle does not require the other runtimes.
PyTorch is imported for `export` only, and by ExecuTorch, which needs it itself.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from convert.bundle import Bundle

if TYPE_CHECKING:
    from torch import Tensor, nn

INPUT = "image"  # Name of the input, in formats that have names; `names` has those of the outputs.

# From images, [1, H, W, 3] of `Bundle.input_type`, to the output of the model file, channels last. The two tensors of
# a detector are joined: float32 [1, A, classes + 4], the logits of an anchor before its box deltas.
Network = Callable[[np.ndarray], np.ndarray]


class Graph(NamedTuple):
    """The network that is to be exported.

    Attributes:
        model: Inference form, made by `graph.rewrites.deploy`: images [1, 3, H, W] -> logits [1, classes], logits8
            [1, classes, h, w], or logits [1, A, classes] and box deltas [1, A, 4]. If `input_type` is "uint8" it
            takes [1, H, W, 3].
        task: See `Bundle.task`.
        output: Output that the model file is to have, see `Bundle.output`.
        input_size: H and W in pixels.
        input_type: See `Bundle`.
        dynamic_batch: See `Bundle`; for runtimes with `DYNAMIC_BATCH`.
        opset: Version of the set of operators, one of the runtime's `OPSETS`; None for its default.
    """

    model: "nn.Module"
    task: str
    output: str
    input_size: tuple[int, int]
    input_type: str = "float32"
    dynamic_batch: bool = False
    opset: int | None = None

    def example(self) -> "Tensor":
        """Returns an input of `model`, as exporters ask for one to follow its way through the network."""
        import torch

        batch = 2 if self.dynamic_batch else 1  # Exporters take a 1 for a constant.
        if self.input_type == "uint8":
            return torch.zeros(batch, *self.input_size, 3, dtype=torch.uint8)
        return torch.zeros(batch, 3, *self.input_size)


class Runtime(Protocol):
    """The constants and functions that the module of every runtime has.

    Attributes:
        LAYOUT: Layout of the model's input in float32, "NCHW" or "NHWC"; that of uint8 is "NHWC", as cameras give it.
        OUTPUT_LAYOUTS: Output of a segmentation model ("logits8", "logits") -> its layout.
        PRECISIONS: Precisions in which a model can be written.
        LABELS_IN_GRAPH: True if a graph may end in labels; otherwise labels are computed from logits8 afterwards.
        INPUT_TYPES: Types that the input may have.
        NAMED: True if the tensors have names, `INPUT` and that of the output.
        DYNAMIC_BATCH: True if the batch size may be left open.
        OPSETS: Versions of the set of operators that a model may be written in; () if the format has none.
        RUNS_HERE: True if the runtime runs on this machine. Otherwise `load` computes what is in the file in another
            way, for the comparison at export, and `registry.load` refuses the bundle.
    """

    LAYOUT: str
    OUTPUT_LAYOUTS: dict[str, str]
    PRECISIONS: tuple[str, ...]
    LABELS_IN_GRAPH: bool
    INPUT_TYPES: tuple[str, ...]
    NAMED: bool
    DYNAMIC_BATCH: bool
    OPSETS: Sequence[int]
    RUNS_HERE: bool

    def export(self, graph: Graph, folders: Mapping[str, Path], calibration: Sequence[np.ndarray]) -> None:
        """Writes the model in several precisions, each to a folder of its own.

        Args:
            graph: The network, in float32.
            folders: Precision -> an existing folder, to which the model file of `MODEL_FILES` is written.
            calibration: Images as the model takes them, [1, H, W, 3]; used for int8 only.
        """

    def annotate(self, bundle: Bundle) -> None:
        """Writes `metadata` of the bundle into the model file, in formats that have a place for it."""

    def load(self, bundle: Bundle, threads: int = 1) -> Network:
        """Returns a function that runs the model of `bundle`; later calls do not overwrite its results."""

    def outside(self, bundle: Bundle) -> dict[str, int]:
        """Returns the operators that the runtime's fast path does not take: name -> count."""

    def remark(self, bundle: Bundle) -> str:
        """Returns what else the report of this format has to say; "" for nothing."""


def metadata(bundle: Bundle) -> dict[str, str]:
    """Returns what a reader of the model file alone has to know; values that are no text are in JSON."""
    tensors = "output", "tail", "input_size", "input_type", "layout", "output_layout"
    images = "preprocessing", "normalized_inside", "mean", "std"
    fields = (
        "task",
        "name",
        "precision",
        *tensors,
        *images,
        "class_names",
        "masks",
        "decoding",
        "licence",
        "source",
    )
    values = {field: getattr(bundle, field) for field in fields}
    return {field: value if isinstance(value, str) else json.dumps(value) for field, value in values.items()}


def channels_first(images: np.ndarray) -> np.ndarray:
    """Returns images [B, H, W, C] as a contiguous array [B, C, H, W]."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def input_layout(input_type: str, of_floats: str) -> str:
    """Returns `Bundle.layout` of a type of input; `of_floats` is the runtime's `LAYOUT`."""
    return "NHWC" if input_type == "uint8" else of_floats


def in_layout(images: np.ndarray, layout: str) -> np.ndarray:
    """Returns images [B, H, W, C] as a contiguous array in `Bundle.layout`."""
    return channels_first(images) if layout == "NCHW" else np.ascontiguousarray(images)


def names(output: str) -> tuple[str, ...]:
    """Returns the names of the tensors of an output, see `Bundle.output`."""
    return ("logits", "deltas") if output == "head" else (output,)


def joined(outputs: Sequence[np.ndarray], layout: str) -> np.ndarray:
    """Returns a copy of a model file's tensors as one array, see `Network`; `layout` is `Bundle.output_layout`."""
    if len(outputs) > 1:
        return np.concatenate(outputs, axis=-1)
    return np.array(outputs[0].transpose(0, 2, 3, 1) if layout == "NCHW" else outputs[0])


def upsampled(graph: Graph) -> "nn.Module":
    """Returns the model with an upsampling layer if "logits" of the input's size are wanted; channels first."""
    from torch import nn

    if graph.task != "segmentation" or graph.output == "logits8":
        return graph.model
    return nn.Sequential(graph.model, nn.Upsample(graph.input_size, mode="bilinear", align_corners=False))
