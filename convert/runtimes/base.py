"""What a runtime module provides, and helpers that all of them share.

A runtime is imported inside functions, and PyTorch in `export` alone: who only runs bundles needs neither PyTorch
nor the other runtimes.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from convert.bundle import Bundle

if TYPE_CHECKING:
    from torch import nn

# Images float32 [1, H, W, 3] -> what the model file gives, channels last.
Network = Callable[[np.ndarray], np.ndarray]


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
