"""ExecuTorch, with the whole graph lowered to XNNPACK as one delegate."""

import collections
import copy
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from convert.bundle import MODEL_FILES, Bundle
from convert.runtimes import base, registry
from convert.runtimes.base import Graph, Network
from seaformer_jax.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram

LAYOUT = "NCHW"
OUTPUT_LAYOUTS = {"logits8": "NCHW", "logits": "NCHW"}
PRECISIONS = ("fp32", "fp16", "int8")
LABELS_IN_GRAPH = False  # XNNPACK has no ArgMax.
INPUT_TYPES = ("float32",)  # A cast from uint8 would run outside XNNPACK.
NAMED, DYNAMIC_BATCH, OPSETS = False, False, ()
RUNS_HERE = True

_CAST = "dim_order_ops::_to_dim_order_copy"  # Casts between fp16 and float32, which XNNPACK does not take.


def export(graph: Graph, folders: Mapping[str, Path], calibration: Sequence[np.ndarray]) -> None:
    """See `Runtime`.

    fp16: weights and arithmetic are in half precision, input and output in float32. The two casts are the only
    operators outside the delegate.
    int8: weights are quantised per channel, activations per tensor.

    Raises:
        UserError: An operator remains outside the one delegate. It would run on ExecuTorch's portable kernels, which
            take many times as long.
    """
    import torch

    from convert.graph import doubling, head_copies

    logging.getLogger("torch.export").setLevel(logging.ERROR)
    model, example = copy.deepcopy(base.upsampled(graph)).eval(), graph.example()
    doubling.by_convolution(model)  # In place, hence the copy.
    for precision, folder in folders.items():
        if precision == "int8":
            program = _quantized(head_copies.with_copies(model), example, calibration)
        elif precision == "fp16":
            program = torch.export.export(_half(model), (example,), strict=True)
        else:
            program = torch.export.export(model, (example,), strict=True)
        path = folder / MODEL_FILES["executorch"]
        path.write_bytes(_lowered(program))
        _check_delegated(path)


def annotate(bundle: Bundle) -> None:
    """See `Runtime`. ExecuTorch's files have no place for it."""


def _half(model: "nn.Module") -> "nn.Module":
    """Returns a copy of `model` in float16, between casts from and to float32."""
    import torch
    from torch import nn

    class Cast(nn.Module):
        def __init__(self, dtype: torch.dtype):
            super().__init__()
            self.dtype = dtype

        def forward(self, x: "Tensor | tuple[Tensor, ...]") -> "Tensor | tuple[Tensor, ...]":
            if isinstance(x, tuple):
                return tuple(part.to(self.dtype) for part in x)
            return x.to(self.dtype)

    return nn.Sequential(Cast(torch.float16), copy.deepcopy(model).half(), Cast(torch.float32))


def _quantized(model: "nn.Module", example: "Tensor", calibration: Sequence[np.ndarray]) -> "ExportedProgram":
    """Quantises `model` statically: observers see the calibration images, then become the quantised operators."""
    import torch
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer
    from torchao.quantization.pt2e import quantize_pt2e

    config = xnnpack_quantizer.get_symmetric_quantization_config(is_per_channel=True)
    quantizer = xnnpack_quantizer.XNNPACKQuantizer().set_global(config)
    # The observers record the ranges of the activations while the calibration images run.
    observed = quantize_pt2e.prepare_pt2e(
        torch.export.export(model, (example,), strict=True).module(), quantizer
    )
    for image in calibration:
        observed(torch.from_numpy(base.channels_first(image)))
    return torch.export.export(quantize_pt2e.convert_pt2e(observed), (example,), strict=True)


def _lowered(program: "ExportedProgram") -> bytes:
    """Returns the content of a .pte file, with everything in XNNPACK that it takes."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    return to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch().buffer


def _check_delegated(path: Path) -> None:
    """Raises UserError unless XNNPACK runs the whole model, except casts, in one part."""
    delegates, kernels = _calls(path)
    kernels.pop(_CAST, None)
    if delegates != 1 or kernels:
        rest = ", ".join(f"{count} {name}" for name, count in kernels.items()) or "nothing"
        raise UserError(
            f"XNNPACK runs the model in {delegates} parts and leaves out {rest}; expected one part and nothing left "
            "out; choose another format"
        )


def _calls(path: Path) -> tuple[int, collections.Counter]:
    """Returns the number of parts of a model file that XNNPACK runs, and the counts of the other operators."""
    from executorch.exir._serialize import _program

    content = _program.deserialize_pte_binary(path.read_bytes())
    (plan,) = getattr(content, "program", content).execution_plan  # The program of the one method, `forward`.
    calls = [instruction.instr_args for chain in plan.chains for instruction in chain.instructions]
    kernels = [plan.operators[call.op_index].name for call in calls if hasattr(call, "op_index")]
    return sum(hasattr(call, "delegate_index") for call in calls), collections.Counter(kernels)


def load(bundle: Bundle, threads: int = 1) -> Network:
    """See `Runtime`."""
    module = registry.run_module("executorch", "executorch.runtime")
    import torch
    from executorch.extension.pybindings import portable_lib

    # All models of a process share one thread pool.
    portable_lib._unsafe_reset_threadpool(threads)
    method = module.Runtime.get().load_program(bundle.model).load_method("forward")

    def network(images: np.ndarray) -> np.ndarray:
        outputs = method.execute([torch.from_numpy(base.channels_first(images))])
        return base.joined([output.numpy() for output in outputs], bundle.output_layout)

    return network


def outside(bundle: Bundle) -> dict[str, int]:
    """See `Runtime`. These are the casts at both ends in fp16, and none in the other precisions."""
    return dict(_calls(bundle.model)[1])


def remark(bundle: Bundle) -> str:
    """See `Runtime`. There is nothing."""
    return ""
