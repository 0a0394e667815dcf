"""A static page that runs an ONNX model in a browser, with ONNX Runtime Web in WebAssembly or WebGPU.

The export is checked with ONNX Runtime in Python, which reads the same file; `convert.latency --device browser`
checks it in a browser.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from convert.bundle import Bundle
from convert.runtimes import onnx
from convert.runtimes.base import Graph
from convert.web import library
from seaformer_jax.errors import UserError

LAYOUT, PRECISIONS = onnx.LAYOUT, onnx.PRECISIONS
# The page makes labels of the logits itself, see web/labels.js.
OUTPUT_LAYOUTS, LABELS_IN_GRAPH = {"logits8": onnx.OUTPUT_LAYOUTS["logits8"]}, False
INPUT_TYPES = onnx.INPUT_TYPES
NAMED, DYNAMIC_BATCH, OPSETS = True, False, onnx.OPSETS
RUNS_HERE = True  # By ONNX Runtime, which reads the same file.

load, outside, remark = onnx.load, onnx.outside, onnx.remark


def export(graph: Graph, folders: Mapping[str, Path], calibration: Sequence[np.ndarray]) -> None:
    """See `Runtime`, and `onnx.export`.

    Raises:
        UserError: The model is a detector.
    """
    if graph.task == "detection":
        raise UserError("the page of --format web does not draw boxes; choose --format onnx")
    onnx.export(graph, folders, calibration)


def annotate(bundle: Bundle) -> None:
    """See `Runtime`; also writes the page and its library into the bundle."""
    onnx.annotate(bundle)
    library.write_page(bundle.folder)
