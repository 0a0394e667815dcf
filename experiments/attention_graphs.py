"""Bare attention modules in the runtimes and in JAX, for `experiments.attention_latency`.

A module has 64 channels and 2 heads. It is exported on its own and in its own layout: SEA and ACmix's sliding form
take [1, C, H, W], the others [1, H, W, C], so that no module pays for a transposition.
"""

import io
import pathlib
import tempfile
import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from torch import nn

from convert.graph import seeded_networks
from convert.torch_attention.layers import ChannelsLast
from seaformer_jax.models import attention

CHANNELS, HEADS = 64, 2
_OPSET = 18


class InOwnLayout(nn.Module):
    """An attention module that takes [1, H, W, C]."""

    def __init__(self, module: ChannelsLast):
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.module.attend(x)


def network(kind: str, side: int) -> tuple[nn.Module, torch.Tensor]:
    """Returns the inference form of a module for maps of side x side, and a map for it."""
    module = seeded_networks.attention(kind, (side, side), CHANNELS, HEADS)
    generator = torch.Generator().manual_seed(1)
    if isinstance(module[0], ChannelsLast):
        return InOwnLayout(module[0]).eval(), torch.randn(1, side, side, CHANNELS, generator=generator)
    return module.eval(), torch.randn(1, CHANNELS, side, side, generator=generator)


def in_onnx(kind: str, side: int) -> Callable[[], object]:
    """Returns a function that runs the module once in ONNX Runtime, on one thread."""
    model, x = network(kind, side)
    # ONNX Runtime refuses what the TorchScript exporter makes of the BatchNorms of axial_deeplab.
    return checked(onnx_session(model, x, dynamo=kind == "axial_deeplab"), model, x)


def onnx_session(model: nn.Module, x: torch.Tensor, *, dynamo: bool = False) -> Callable[[], np.ndarray]:
    """Returns a function that runs `model` on `x` in ONNX Runtime, on one thread; it returns the first output.

    The graph is written by PyTorch's TorchScript exporter, which takes a tenth of the time of the other one (dynamo).
    """
    import onnxruntime

    content = io.BytesIO()
    with warnings.catch_warnings():
        # It warns about everything that depends on a shape; shapes are fixed here.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model, (x,), None if dynamo else content, dynamo=dynamo, opset_version=_OPSET
        )
    if dynamo:
        program.save(content)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(content.getvalue(), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: x.numpy()}
    return lambda: session.run(None, feed)[0]


def in_litert(kind: str, side: int) -> Callable[[], object]:
    """Returns a function that runs the module once in LiteRT with XNNPACK, on one thread."""
    import litert_torch
    from ai_edge_litert import interpreter

    model, x = network(kind, side)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "m.tflite"
        litert_torch.convert(model, (x,)).export(str(path))
        runner = interpreter.Interpreter(model_content=path.read_bytes(), num_threads=1)
    runner.allocate_tensors()
    (given,), (result,) = runner.get_input_details(), runner.get_output_details()
    runner.set_tensor(given["index"], x.numpy())

    def run() -> np.ndarray:
        runner.invoke()
        return runner.get_tensor(result["index"])

    return checked(run, model, x)


def checked(run: Callable[[], np.ndarray], model: nn.Module, x: torch.Tensor) -> Callable[[], object]:
    """Returns `run` after comparing its output with PyTorch's; ValueError if they differ."""
    with torch.no_grad():
        expected = model(x).numpy()
    error = np.abs(run() - expected).max() / np.abs(expected).max()
    if not error < 1e-4:
        raise ValueError(f"the exported module differs by {error:.1e} of the largest value")
    return run


def training(kind: str, side: int) -> tuple[Callable[[], object], int]:
    """Returns a function that computes output and gradients once in JAX, and the bytes of temporary memory."""
    module = attention.create(kind, CHANNELS, HEADS, size=(side, side))
    graphdef, params, stats = nnx.split(module, nnx.Param, nnx.BatchStat)
    trees = nnx.to_pure_dict(params), nnx.to_pure_dict(stats)
    x = jnp.asarray(np.random.default_rng(1).standard_normal((1, side, side, CHANNELS)), jnp.float32)

    def loss(params, stats, x):
        return jnp.square(nnx.merge(graphdef, params, stats)(x, train=True)).sum()

    compiled = jax.jit(jax.grad(loss, argnums=(0, 2))).lower(*trees, x).compile()
    memory = compiled.memory_analysis().temp_size_in_bytes
    return lambda: jax.block_until_ready(compiled(*trees, x)), memory
