"""ONNX, run by ONNX Runtime on the CPU."""

import copy
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from convert.bundle import MODEL_FILES, Bundle
from convert.runtimes import base, registry
from convert.runtimes.base import Graph, Network

if TYPE_CHECKING:
    from torch import nn

LAYOUT = "NCHW"
OUTPUT_LAYOUTS = {
    "logits8": "NCHW",
    "logits": "NHWC",
}  # "logits" have the channels last for speed, see graph/output_layers.py.
PRECISIONS = ("fp32", "fp16", "int8")
LABELS_IN_GRAPH = True
INPUT_TYPES = ("float32", "uint8")
NAMED = DYNAMIC_BATCH = True
RUNS_HERE = True
OPSETS = range(18, 24)  # The oldest that PyTorch's exporter writes, and the newest that it is tested with.

_TAILS = {"logits": "LogitsTail", "labels": "LabelsTail"}
_OPSET = 20
# Operators in 8 bits. The others are the few small ones of attention, which are slower in 8 bits on x86.
_QUANTIZED = ["Conv", "Relu", "Clip", "Add", "Mul"]


def export(graph: Graph, folders: Mapping[str, Path], calibration: Sequence[np.ndarray]) -> None:
    """See `Runtime`.

    fp16: the weights are in half precision. ONNX Runtime widens them when it loads the model, so that CPUs without
    half precision arithmetic lose nothing.
    int8: QDQ, with int8 weights per channel, from -64 to 64, and uint8 activations per tensor.
    """
    import onnx

    model = _float_model(graph)
    for precision, folder in folders.items():
        path = folder / MODEL_FILES["onnx"]
        if precision == "int8":
            _quantize(model, path, calibration, base.input_layout(graph.input_type, LAYOUT))
        else:
            onnx.save(_with_half_weights(model) if precision == "fp16" else model, path)


def _float_model(graph: Graph) -> "onnx.ModelProto":  # noqa: F821
    """Exports the network with the layers that its output needs, in float32."""
    import torch

    from convert.graph import output_layers, rewrites

    if graph.dynamic_batch:
        graph = graph._replace(model=copy.deepcopy(graph.model))  # The rewrite works in place.
        rewrites.any_batch(graph.model)
    parts = [graph.model]
    if graph.task == "segmentation" and graph.output in _TAILS:
        parts.append(getattr(output_layers, _TAILS[graph.output])(graph.input_size))
    return written(torch.nn.Sequential(*parts), graph)


def written(model: "nn.Module", graph: Graph) -> "onnx.ModelProto":  # noqa: F821
    """Writes `model`, which has the input and the output of `graph`, in float32."""
    import torch

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # It warns about optional libraries.
    # The exporter by `torch.export` (dynamo); with it the tails can write ONNX operators themselves.
    program = torch.onnx.export(
        model,
        (graph.example(),),
        dynamo=True,
        opset_version=graph.opset or _OPSET,
        dynamic_shapes=({0: torch.export.Dim("batch")},) if graph.dynamic_batch else None,
        input_names=[base.INPUT],
        output_names=base.names(graph.output),
        verbose=False,
    )
    return _without_remarks(program.model_proto)


def _without_remarks(model: "onnx.ModelProto") -> "onnx.ModelProto":  # noqa: F821
    """Removes the exporter's notes on the origin of each operator, half a megabyte in total."""
    graph = model.graph
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return model


def _with_half_weights(model: "onnx.ModelProto") -> "onnx.ModelProto":  # noqa: F821
    """Returns the model with float16 weights, each followed by a Cast to float32.

    Weights with values too large for float16 stay float32.
    """
    import onnx
    from onnx import numpy_helper

    half = onnx.ModelProto()
    half.CopyFrom(model)
    casts = []
    for initializer in half.graph.initializer:
        values = numpy_helper.to_array(initializer)
        if values.dtype != np.float32 or np.abs(values).max(initial=0) > np.finfo(np.float16).max:
            continue
        name = initializer.name
        initializer.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    # Nodes must come before those that use their output, so the casts go first.
    nodes = [*casts, *half.graph.node]
    del half.graph.node[:]
    half.graph.node.extend(nodes)
    return half


def annotate(bundle: Bundle) -> None:
    """See `Runtime`: `metadata_props`, an entry for each field."""
    import onnx

    model = onnx.load(bundle.model)
    onnx.helper.set_model_props(model, base.metadata(bundle))
    onnx.save(model, bundle.model)


def _quantize(
    model: "onnx.ModelProto",  # noqa: F821
    path: Path,
    calibration: Sequence[np.ndarray],
    layout: str,
) -> None:
    """Quantises the model statically, with ranges from the calibration images, and writes it to `path`."""
    from onnxruntime import quantization

    class Images(quantization.CalibrationDataReader):
        def __init__(self):
            self._images = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self._images, None)
            return None if image is None else {base.INPUT: base.in_layout(image, layout)}

    quantization.quantize_static(
        model,
        path,
        Images(),
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=_QUANTIZED,
        per_channel=True,
        # x86 processors without VNNI add two products of 8 bits in 16 bits, where 2 * 255 * 127 overflows and
        # 2 * 255 * 64 does not: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
        reduce_range=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )


def opened(bundle: Bundle, threads: int, profile: str = "") -> "onnxruntime.InferenceSession":  # noqa: F821
    """Returns a session of the model.

    Args:
        bundle: A bundle of the formats onnx or web.
        threads: Number of threads.
        profile: Start of the path of a profile, which the session writes; "" for none.
    """
    onnxruntime = registry.run_module("onnx", "onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    return onnxruntime.InferenceSession(bundle.model, options, providers=["CPUExecutionProvider"])


def load(bundle: Bundle, threads: int = 1) -> Network:
    """See `Runtime`."""
    session = opened(bundle, threads)

    def network(images: np.ndarray) -> np.ndarray:
        outputs = session.run(None, {base.INPUT: base.in_layout(images, bundle.layout)})
        return base.joined(outputs, bundle.output_layout)

    return network


def outside(bundle: Bundle) -> dict[str, int]:
    """See `Runtime`. There are none: the CPU provider takes every operator, or loading fails."""
    return {}


def remark(bundle: Bundle) -> str:
    """See `Runtime`. There is nothing."""
    return ""
