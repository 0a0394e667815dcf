"""The interface of a runtime module, and helpers that the modules share.

Every module imports its runtime inside functions, so that running a bundle does not require the other runtimes.
PyTorch is imported for `export` only, and by ExecuTorch, which needs it itself.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from convert.bundle import Bundle

if TYPE_CHECKING:
    from torch import nn

# From images, float32 [1, H, W, 3], to the output of the model file, channels last. The two tensors of a detector are
# joined: float32 [1, A, classes + 4], the logits of an anchor before its box deltas.
Network = Callable[[np.ndarray], np.ndarray]


class Graph(NamedTuple):
    """The network that is to be exported.

    Attributes:
        model: Inference form, made by `graph.rewrites.deploy`: images [1, 3, H, W] -> logits [1, classes], logits8
            [1, classes, h, w], or logits [1, A, classes] and box deltas [1, A, 4].
        task: See `Bundle.task`.
        output: Output that the model file is to have, see `Bundle.output`.
        input_size: H and W in pixels.
    """

    model: "nn.Module"
    task: str
    output: str
    input_size: tuple[int, int]


class Runtime(Protocol):
    """The constants and functions that the module of every runtime has.

    Attributes:
        LAYOUT: Layout of the model's input, "NCHW" or "NHWC".
        OUTPUT_LAYOUTS: Output of a segmentation model ("logits8", "logits") -> its layout.
        PRECISIONS: Precisions in which a model can be written.
        LABELS_IN_GRAPH: True if a graph may end in labels; otherwise labels are computed from logits8 afterwards.
    """

    LAYOUT: str
    OUTPUT_LAYOUTS: dict[str, str]
    PRECISIONS: tuple[str, ...]
    LABELS_IN_GRAPH: bool

    def export(self, graph: Graph, folders: Mapping[str, Path], calibration: Sequence[np.ndarray]) -> None:
        """Writes the model in several precisions, each to a folder of its own.

        Args:
            graph: The network, in float32.
            folders: Precision -> an existing folder, to which the model file of `MODEL_FILES` is written.
            calibration: Images as the model takes them, float32 [1, H, W, 3]; used for int8 only.
        """

    def load(self, bundle: Bundle, threads: int = 1) -> Network:
        """Returns a function that runs the model of `bundle`; later calls do not overwrite its results."""

    def outside(self, bundle: Bundle) -> dict[str, int]:
        """Returns the operators that the runtime's fast path does not take: name -> count."""


def channels_first(images: np.ndarray) -> np.ndarray:
    """Returns images [1, H, W, C] as a contiguous array [1, C, H, W]."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


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
