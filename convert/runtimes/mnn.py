"""MNN, made from the ONNX model: a runtime for phones, with half precision arithmetic on ARMv8.2.

int8 is not offered. The static quantiser in the package of MNN 3.6.1 ends the process on these networks
(std::length_error, by each of its methods), and weights in 8 bits alone save space but no time.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from convert.bundle import MODEL_FILES, Bundle
from convert.runtimes import base, registry
from convert.runtimes.base import Graph, Network
from seaformer_jax.errors import UserError

LAYOUT = "NCHW"
OUTPUT_LAYOUTS = {"logits8": "NCHW", "logits": "NCHW"}
PRECISIONS = ("fp32", "fp16")
# MNN takes the resize with the channels last, in front of the argmax, for another one.
LABELS_IN_GRAPH = False
INPUT_TYPES = ("float32",)  # MNN's ImageProcess makes floats of a camera's bytes.
NAMED, DYNAMIC_BATCH, OPSETS = True, False, ()
RUNS_HERE = True

_WINOGRAD_MEMORY_LEVEL = 3  # MNN::Interpreter::HintMode; the Python package has no name for it.


def export(graph: Graph, folders: Mapping[str, Path], calibration: Sequence[np.ndarray]) -> None:
    """See `Runtime`.

    fp16: the weights are in half precision. The arithmetic is in half precision on processors that have it (ARMv8.2);
    on others MNN computes in float32.

    Raises:
        UserError: MNN's converter does not take the model.
    """
    # `mnnconvert`, the command around this function, reports its use to its makers.
    import _tools
    import onnx

    from convert.graph.rewrites import for_half_arithmetic
    from convert.runtimes.onnx import written

    model = base.upsampled(graph)
    for precision, folder in folders.items():
        with tempfile.TemporaryDirectory() as scratch:
            source, path = Path(scratch) / "model.onnx", folder / MODEL_FILES["mnn"]
            onnx.save(written(for_half_arithmetic(model) if precision == "fp16" else model, graph), source)
            files = ["--modelFile", str(source), "--MNNModel", str(path), "--bizCode", "seaformer"]
            _tools.mnnconvert(
                ["mnnconvert", "-f", "ONNX", *files, *(["--fp16"] if precision == "fp16" else [])]
            )
        if not path.exists():
            raise UserError("MNN's converter does not take the model; choose another format")


def annotate(bundle: Bundle) -> None:
    """See `Runtime`. MNN's files have no place for it; they only keep a code of their origin, `bizCode`."""


def load(bundle: Bundle, threads: int = 1) -> Network:
    """See `Runtime`."""
    nn, expr = registry.run_module("mnn", "MNN.nn"), registry.run_module("mnn", "MNN.expr")
    manager = nn.create_runtime_manager((options(bundle, threads),))
    # Larger units of Winograd's algorithm lose 1e-4 in float32 on narrow layers (4e-5 RMS, on an Intel processor),
    # and gain no time on SeaFormer.
    manager.set_hint(_WINOGRAD_MEMORY_LEVEL, 0)
    names = list(base.names(bundle.output))
    network = nn.load_module_from_file(str(bundle.model), [base.INPUT], names, runtime_manager=manager)
    if network is None:
        raise UserError(f"MNN cannot load {bundle.model}; export the model again")

    def run(images: np.ndarray) -> np.ndarray:
        planes = base.channels_first(images)
        found = network.forward([expr.const(planes, planes.shape, expr.NCHW)])
        # Kept in a variable: what `read` returns does not keep its memory alive.
        outputs = [expr.convert(each, expr.NCHW) for each in found]
        return base.joined([each.read() for each in outputs], bundle.output_layout)

    return run


def options(bundle: Bundle, threads: int) -> dict[str, str | int]:
    """Returns the options of a session."""
    # "high" is float32. "low" is half precision on processors that have it.
    precision = "high" if bundle.precision == "fp32" else "low"
    return {"backend": "CPU", "numThread": threads, "precision": precision}


def outside(bundle: Bundle) -> dict[str, int]:
    """See `Runtime`. There are none: MNN has no delegates, and its converter refuses operators that it lacks."""
    return {}


def remark(bundle: Bundle) -> str:
    """See `Runtime`. There is nothing."""
    return ""
