"""OpenVINO, made from the ONNX model: the format for Intel's processors, GPUs and NPUs.

OpenVINO reads ONNX exactly, int8 included, so that this format has what `onnx` has. `openvino.convert_model`, which
takes PyTorch directly, reports its use to its makers; `Core.read_model` does not.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from convert.bundle import MODEL_FILES, Bundle
from convert.runtimes import base, onnx, registry
from convert.runtimes.base import Graph, Network

LAYOUT, OUTPUT_LAYOUTS, PRECISIONS = onnx.LAYOUT, onnx.OUTPUT_LAYOUTS, onnx.PRECISIONS
# Its resize and argmax take 1.5 times as long as tiny's network, for 64x96 and 150 classes.
LABELS_IN_GRAPH = False
INPUT_TYPES = onnx.INPUT_TYPES
NAMED, DYNAMIC_BATCH, OPSETS = True, True, ()
RUNS_HERE = True

_INFO = "seaformer"  # Section of `rt_info` with the metadata.


def export(graph: Graph, folders: Mapping[str, Path], calibration: Sequence[np.ndarray]) -> None:
    """See `Runtime`.

    fp16: the weights are in half precision. Processors compute in float32, see `load`; GPUs choose half precision.
    int8: that of `onnx`. The 8-bit convolutions of OpenVINO take the same ranges.
    """
    import openvino

    sources = {precision: "int8" if precision == "int8" else "fp32" for precision in folders}
    core = openvino.Core()
    with tempfile.TemporaryDirectory() as scratch:
        models = {source: Path(scratch) / source for source in sources.values()}
        for folder in models.values():
            folder.mkdir()
        onnx.export(graph, models, calibration)
        for precision, folder in folders.items():
            model = core.read_model(models[sources[precision]] / MODEL_FILES["onnx"])
            # OpenVINO halves the weights itself.
            openvino.save_model(model, folder / MODEL_FILES["openvino"], precision == "fp16")


def annotate(bundle: Bundle) -> None:
    """See `Runtime`: `rt_info`, an entry for each field in the section "seaformer"."""
    import openvino

    model = openvino.Core().read_model(bundle.model)
    for key, value in base.metadata(bundle).items():
        model.set_rt_info(value, [_INFO, key])
    # The weights are read while the model is written, so it cannot take the place of its own file at once.
    with tempfile.TemporaryDirectory(dir=bundle.folder) as scratch:
        openvino.save_model(model, Path(scratch) / bundle.model.name, compress_to_fp16=False)
        del model
        for path in Path(scratch).iterdir():
            path.replace(bundle.folder / path.name)


def load(bundle: Bundle, threads: int = 1) -> Network:
    """See `Runtime`."""
    openvino = registry.run_module("openvino", "openvino")
    network = openvino.Core().compile_model(bundle.model, "CPU", options(threads))

    def run(images: np.ndarray) -> np.ndarray:
        found = network(base.in_layout(images, bundle.layout))
        return base.joined([found[name] for name in base.names(bundle.output)], bundle.output_layout)

    return run


def options(threads: int) -> dict[str, str | int]:
    """Returns the options with which OpenVINO compiles a model for the CPU."""
    # Without the first one OpenVINO computes in bfloat16 on processors that have it, and the logits are wrong by 3 %
    # of the largest.
    return {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}


def outside(bundle: Bundle) -> dict[str, int]:
    """See `Runtime`. There are none: the CPU plug-in takes every operator, or loading fails."""
    return {}


def remark(bundle: Bundle) -> str:
    """See `Runtime`. There is nothing."""
    return ""
