"""Forms of a network and options of runtimes that might make convolutions faster: what `deployment_body` tries."""

import copy
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convert.bundle import Bundle
from convert.runtimes import base, openvino, registry
from convert.torch_model import Backbone, InvertedResidual

Run = Callable[[], object]
Size = tuple[int, int]

# Bytes of a strip's hidden map: half of the second-level cache of the processors measured here.
STRIPS = {"strips of 512 KB": 2**19}
# Flags of XNNPACK's delegate, from its header.
_FLAGS = {"its newest operators": 0x40, "no reshaping": 0x400, "transient indirection": 0x20}
_ONNX = {
    "no arena": {"enable_cpu_mem_arena": False},
    "no memory pattern": {"enable_mem_pattern": False},
    "channels not blocked": {"graph_optimization_level": 2},
}
_ONNX_ENTRIES = {
    "denormals are zero": {"session.set_denormal_as_zero": "1"},
    "weights not packed": {"session.disable_prepacking": "1"},
}
_OPENVINO = {
    "latency hint": {"PERFORMANCE_HINT": "LATENCY"},
    "no pinning": {"ENABLE_CPU_PINNING": False},
}


class Strips(nn.Module):
    """An inverted residual in horizontal strips, so that hidden maps stay in a cache.

    A strip has the rows around it that its kernel reads. They are computed with it and cut off at the end, where the
    map is narrow.
    """

    def __init__(self, block: InvertedResidual, height: int, count: int):
        super().__init__()
        self.block = block
        depthwise = _depthwise(block)
        reach, stride = depthwise.kernel_size[0] // 2, depthwise.stride[0]
        rows = -(-height // stride)
        step = -(-rows // count)
        self.cuts = []
        for first in range(0, rows, step):
            last = min(first + step, rows)
            top = max(0, stride * first - reach) // stride * stride
            bottom = min(height, stride * (last - 1) + reach + 1)
            self.cuts.append((top, bottom, first - top // stride, last - top // stride))

    def forward(self, x: Tensor) -> Tensor:
        strips = [self.block(x[:, :, top:bottom])[:, :, first:last] for top, bottom, first, last in self.cuts]
        return torch.cat(strips, 2)


def in_strips(model: nn.Module, size: Size, most: int) -> nn.Module:
    """Returns a copy of a network whose inverted residuals run in strips if a hidden map has over `most` bytes."""
    model = copy.deepcopy(model)
    backbone = next(module for module in model.modules() if isinstance(module, Backbone))
    height, width = (-(-side // 2) for side in size)  # After the stem.
    for number in range(len(backbone.channels)):
        stage = backbone.get_submodule(f"smb{number + 1}")
        for name, block in list(stage.named_children()):
            if isinstance(block, InvertedResidual):
                depthwise = _depthwise(block)
                count = round(4 * depthwise.out_channels * height * width / most)
                if count > 1:
                    setattr(stage, name, Strips(block, height, count))
                height, width = (-(-side // depthwise.stride[0]) for side in (height, width))
    return model


def _depthwise(block: InvertedResidual) -> nn.Conv2d:
    return next(part for part in block.modules() if isinstance(part, nn.Conv2d) and part.groups > 1)


def options(bundle: Bundle) -> dict[str, Run]:
    """Returns a function that runs `bundle` once for each option of its runtime, the defaults first."""
    image = base.in_layout(bundle.reference()[0], bundle.layout)
    return {"litert": _in_litert, "onnx": _in_onnx, "openvino": _in_openvino}[bundle.format](bundle, image)


def _in_litert(bundle: Bundle, image: np.ndarray) -> dict[str, Run]:
    runs = {"defaults": litert(bundle, image)}
    return runs | {name: litert(bundle, image, xnnpack_flags=flags) for name, flags in _FLAGS.items()}


def litert(bundle: Bundle, image: np.ndarray, **settings: Any) -> Run:
    """Returns a function that runs a LiteRT bundle with `settings` of `CpuOptions`."""
    # By the newer of LiteRT's two interfaces in Python, the one that has options.
    module = registry.run_module("litert", "ai_edge_litert.compiled_model")
    cpu = registry.run_module("litert", "ai_edge_litert.cpu_options").CpuOptions(num_threads=1, **settings)
    chosen = registry.run_module("litert", "ai_edge_litert.options").Options(cpu_options=cpu)
    model = module.CompiledModel.from_file(str(bundle.model), options=chosen)
    inputs, outputs = model.create_input_buffers(0), model.create_output_buffers(0)
    inputs[0].write(image)
    return lambda: model.run_by_index(0, inputs, outputs)


def _in_onnx(bundle: Bundle, image: np.ndarray) -> dict[str, Run]:
    module = registry.run_module("onnx", "onnxruntime")

    def run(attributes: Mapping[str, Any], entries: Mapping[str, str]) -> Run:
        chosen = module.SessionOptions()
        chosen.intra_op_num_threads = chosen.inter_op_num_threads = 1
        for name, value in attributes.items():
            level = name == "graph_optimization_level"
            setattr(chosen, name, module.GraphOptimizationLevel(value) if level else value)
        for name, value in entries.items():
            chosen.add_session_config_entry(name, value)
        session = module.InferenceSession(bundle.model, chosen, providers=["CPUExecutionProvider"])
        return lambda: session.run(None, {base.INPUT: image})

    attributes = {name: run(own, {}) for name, own in _ONNX.items()}
    return {
        "defaults": run({}, {}),
        **attributes,
        **{name: run({}, own) for name, own in _ONNX_ENTRIES.items()},
    }


def _in_openvino(bundle: Bundle, image: np.ndarray) -> dict[str, Run]:
    core = registry.run_module("openvino", "openvino").Core()

    def run(settings: Mapping[str, Any]) -> Run:
        network = core.compile_model(bundle.model, "CPU", openvino.options(1) | settings)
        return lambda: network(image)

    return {"defaults": run({}), **{name: run(own) for name, own in _OPENVINO.items()}}


def loading(bundle: Bundle) -> dict[str, Run]:
    """Returns functions that load a LiteRT bundle and run it once, without and with a cache of its weights."""
    image = bundle.reference()[0]
    folder = tempfile.TemporaryDirectory()
    cache = str(pathlib.Path(folder.name) / "weights")

    def cached() -> None:
        litert(bundle, image, xnnpack_weight_cache_path=cache)()
        assert pathlib.Path(folder.name).exists()  # The folder lives as long as this function.

    cached()  # Writes the file.
    return {"without a cache": lambda: litert(bundle, image)(), "with a cache": cached}
