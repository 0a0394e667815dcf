"""LiteRT (TensorFlow Lite), run with XNNPACK: the format for phones."""

import collections
import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from convert.bundle import MODEL_FILES, Bundle
from convert.runtimes import base, registry, tflite_gpu, tflite_metadata
from convert.runtimes.base import Graph, Network

LAYOUT = "NHWC"
OUTPUT_LAYOUTS = {"logits8": "NHWC", "logits": "NHWC"}
PRECISIONS = ("fp32", "fp16", "int8")
LABELS_IN_GRAPH = False  # Its ArgMax is scalar: 0.2 s for 150 classes at 512x512.
INPUT_TYPES = ("float32", "uint8")
NAMED, DYNAMIC_BATCH, OPSETS = True, False, ()
RUNS_HERE = True

_DELEGATE = "DELEGATE"
# Operators of int8 models that stay in float32: input and output, and the few small operators of attention that
# XNNPACK does not take in 8 bits. The last three are the softmax of a single token.
_FLOAT = ("INPUT", "OUTPUT", "BATCH_MATMUL", "SOFTMAX", "AVERAGE_POOL_2D", "MAXIMUM", "SUB", "DIV")


def export(graph: Graph, folders: Mapping[str, Path], calibration: Sequence[np.ndarray]) -> None:
    """See `Runtime`.

    fp16: the weights are in half precision. The arithmetic is in half precision on processors that have it (ARMv8.2),
    unless `tflite_metadata` finds an operator that forbids it; on others XNNPACK computes in float32.
    int8: weights are quantised per channel, activations per tensor; input and output are float32. The ranges of the
    activations are static. Dynamic-range int8, the default of some tools, is 3.5 times slower than fp32 on
    convolutions.
    """
    file = MODEL_FILES["litert"]
    # The other precisions are made from the file in float32.
    model = _float_model(graph, next(iter(folders.values())) / "float.tflite")
    for precision, folder in folders.items():
        if precision == "fp32":
            (folder / file).write_bytes(model)
        else:
            _quantized(model, precision, calibration).export_model(folder / file, overwrite=True)


def _float_model(graph: Graph, path: Path) -> bytes:
    """Returns the content of the .tflite file in float32; `path` is a temporary file."""
    import litert_torch
    import torch

    from convert.graph import doubling, tokens

    class Named(torch.nn.Module):
        """Gives names to input and output: the converter takes them from a keyword and from a dictionary."""

        def __init__(self, model: torch.nn.Module):
            super().__init__()
            self.model = model

        def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
            output = self.model(image)
            outputs = output if isinstance(output, tuple) else (output,)
            return dict(zip(base.names(graph.output), outputs, strict=True))

    # An image in bytes has its channels last already.
    inputs = [0] if graph.input_type == "float32" else None
    maps = [0] if graph.task == "segmentation" else None  # Only feature maps have channels to move.
    network = copy.deepcopy(base.upsampled(graph))
    doubling.by_concatenation(network)  # In place, hence the copy.
    tokens.by_token(network)
    model = litert_torch.to_channel_last_io(network, args=inputs, outputs=maps)
    example = graph.example()
    if inputs:
        example = example.permute(0, 2, 3, 1).contiguous()
    converted = litert_torch.convert(Named(model).eval(), sample_kwargs={base.INPUT: example})
    converted.export(str(path))
    content = path.read_bytes()
    path.unlink()
    return content


def annotate(bundle: Bundle) -> None:
    """See `Runtime`."""
    tflite_metadata.write(bundle)


def _quantized(model: bytes, precision: str, calibration: Sequence[np.ndarray]):
    """Returns ai-edge-quantizer's result for fp16 or int8."""
    from ai_edge_quantizer import algorithm_manager, qtyping, quantizer

    quantize, everything = quantizer.Quantizer(model), qtyping.TFLOperationName.ALL_SUPPORTED
    if precision == "fp16":
        algorithm = algorithm_manager.AlgorithmName.FLOAT_CASTING
        quantize.add_weight_only_config(".*", everything, num_bits=16, algorithm_key=algorithm)
        return quantize.quantize()
    # int8: quantise everything, then take back the operators that stay in float32.
    quantize.add_static_config(".*", everything, activation_num_bits=8, weight_num_bits=8)
    for name in _FLOAT:
        kept, algorithm = qtyping.TFLOperationName[name], algorithm_manager.AlgorithmName.NO_QUANTIZE
        quantize.update_quantization_recipe(".*", kept, algorithm_key=algorithm)
    signature, name = _signature(model)
    # Calibrate on one image at a time: over several images ai-edge-quantizer keeps a moving average, in which the
    # first image counts most.
    calibrations = [quantize.calibrate({signature: [{name: image}]}, num_threads=1) for image in calibration]
    return quantize.quantize(_widest(calibrations))


def _widest(calibrations: Sequence[Mapping[str, dict]]) -> dict[str, dict]:
    """Merges the calibrations of single images: tensor -> its smallest and largest value over all of them."""
    return {
        tensor: {
            "min": np.min([ranges[tensor]["min"] for ranges in calibrations], axis=0),
            "max": np.max([ranges[tensor]["max"] for ranges in calibrations], axis=0),
        }
        for tensor in calibrations[0]
    }


def _signature(model: bytes) -> tuple[str, str]:
    """Returns the name of the model's only signature and the name of its only input."""
    from ai_edge_litert import interpreter

    ((signature, names),) = interpreter.Interpreter(model_content=model).get_signature_list().items()
    return signature, names["inputs"][0]


def load(bundle: Bundle, threads: int = 1) -> Network:
    """See `Runtime`."""
    interpreter = _interpreter(bundle, threads)
    (input_,) = interpreter.get_input_details()
    by_name = interpreter.get_signature_runner().get_output_details()
    outputs = [by_name[name]["index"] for name in base.names(bundle.output)]

    def network(images: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(input_["index"], images)
        interpreter.invoke()
        return base.joined([interpreter.get_tensor(index) for index in outputs], "NHWC")

    return network


def outside(bundle: Bundle) -> dict[str, int]:
    """See `Runtime`. The operators are found by walking back from the output; those of XNNPACK are one step each."""
    interpreter = _interpreter(bundle, 1)
    operators = interpreter._get_ops_details()
    # The list has every delegated part in addition to the operators that it replaces. The parts come last, so they
    # win as makers of a tensor.
    makers = {tensor: operator for operator in operators for tensor in operator["outputs"]}
    # Walk back from the outputs, and count the operators on the way that are not parts of the delegate.
    found, seen = collections.Counter(), set()
    waiting = [details["index"] for details in interpreter.get_output_details()]
    while waiting:
        operator = makers.get(waiting.pop())
        if operator is None or operator["index"] in seen:
            continue
        seen.add(operator["index"])
        waiting += list(operator["inputs"])
        if operator["op_name"] != _DELEGATE:
            found[operator["op_name"]] += 1
    return dict(found)


def remark(bundle: Bundle) -> str:
    """See `Runtime`: what the GPU delegate takes."""
    return tflite_gpu.verdict(bundle.model)


def _interpreter(bundle: Bundle, threads: int) -> "ai_edge_litert.interpreter.Interpreter":  # noqa: F821
    module = registry.run_module("litert", "ai_edge_litert.interpreter")
    interpreter = module.Interpreter(str(bundle.model), num_threads=threads)
    interpreter.allocate_tensors()
    return interpreter
