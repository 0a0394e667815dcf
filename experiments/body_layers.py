"""The convolutions of a network, and what each runtime takes for them.

Runtimes fuse activations and additions into convolutions, but run as many convolutions as PyTorch does. LiteRT runs
those of one form in the same order. ONNX Runtime tells the shapes of weights, and OpenVINO PyTorch's numbers.
"""

import collections
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from convert.latency.profilers import Operator

# Format -> pattern of the kinds of operators that convolve. The matrix products of attention are none of them.
CONVOLUTIONS = {
    "litert": r"Fully Connected|Convolution",
    "onnx": r"Conv|FusedConv|Gemm",
    "openvino": r"Convolution|GroupConvolution|FullyConnected",
}


class Layer(NamedTuple):
    """A convolution, or the linear layer of a classifier.

    Attributes:
        kind: What it is for, see `_kind`.
        form: "depthwise", "pointwise" or "dense".
        macs: Its multiply-accumulates for one image.
        numbers: Numbers that it reads and writes: input, weights and output.
        weights: Shape of its weights.
    """

    kind: str
    form: str
    macs: int
    numbers: int
    weights: tuple[int, ...]


def layers(model: nn.Module, image: Tensor) -> list[Layer]:
    """Returns the convolutions of an inference form in the order in which PyTorch runs them for `image`."""
    found, hooks = [], []

    def record(name: str, module: nn.Module) -> None:
        def seen(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            macs = output.numel() * module.weight[0].numel()
            numbers = inputs[0].numel() + module.weight.numel() + output.numel()
            found.append(Layer(_kind(name, module), _form(module), macs, numbers, tuple(module.weight.shape)))

        hooks.append(module.register_forward_hook(seen))

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            record(name, module)
    with torch.no_grad():
        model(image)
    for hook in hooks:
        hook.remove()
    return found


def _form(module: nn.Module) -> str:
    if isinstance(module, nn.Linear) or module.kernel_size == (1, 1):
        return "pointwise"
    return "depthwise" if module.groups > 1 else "dense"


def _kind(name: str, module: nn.Module) -> str:
    """Returns the kind of a layer: stem, depthwise KxK, attention 1x1, head, expand 1x1 or project 1x1."""
    form = _form(module)
    if form != "pointwise":
        return "stem" if form == "dense" else "depthwise {}x{}".format(*module.kernel_size)
    if ".attn." in name:
        return "attention 1x1"
    if "decode_head" in name or isinstance(module, nn.Linear):
        return "head"
    return "expand 1x1" if module.out_channels > module.in_channels else "project 1x1"


def times(kind: str, operators: Iterable[Operator], network: Sequence[Layer]) -> list[float]:
    """Returns the milliseconds of each layer in the runtime of the format `kind`.

    Raises:
        ValueError: The runtime does not run the same convolutions.
    """
    convolutions = [each for each in operators if re.match(CONVOLUTIONS[kind], each.kind)]
    if len(convolutions) != len(network):
        raise ValueError(f"{len(convolutions)} convolutions in {kind}, {len(network)} in PyTorch")
    if kind == "openvino":
        return [each.ms for each in sorted(convolutions, key=lambda each: _number(each.name))]
    # A queue for each form, or shape of weights.
    queues = collections.defaultdict(list)
    for each in reversed(convolutions):
        queues[_litert_form(each) if kind == "litert" else _onnx_key(each)].append(each.ms)
    return [queues[layer.form if kind == "litert" else _weights_key(layer)].pop() for layer in network]


def _litert_form(operator: Operator) -> str:
    names = {"DWConv": "depthwise", "IGEMM": "dense", "Fully Connected": "pointwise"}
    return next(form for name, form in names.items() if name in operator.kind)


def _onnx_key(operator: Operator) -> tuple[int, ...]:
    return (
        () if operator.kind == "Gemm" else operator.weights
    )  # A Gemm's weights are packed and have no shape.


def _weights_key(layer: Layer) -> tuple[int, ...]:
    """Returns `_onnx_key` of a layer: ONNX Runtime pads output channels to a multiple of 16."""
    outputs, *rest = layer.weights
    return (-(-outputs // 16) * 16, *rest) if len(rest) > 1 else ()


def _number(name: str) -> int:
    """Returns the number in the name of a convolution, such as node_conv2d_12; the linear layer comes last."""
    match = re.match(r"node_conv2d(?:_(\d+))?", name)
    return int(match[1] or 0) if match else 10**9


def rows(network: Sequence[Layer], profiles: dict[str, list[Operator]]) -> list[dict[str, Any]]:
    """Returns a row for every kind of layer, for the rest and for the whole, with the figures of every runtime.

    The column "fastest of all" has for every layer the time of the runtime that is fastest for it.
    """
    spent = {kind: times(kind, operators, network) for kind, operators in profiles.items()}
    best = [min(each) for each in zip(*spent.values(), strict=True)]
    whole = {kind: sum(each.ms for each in operators) for kind, operators in profiles.items()}
    table = []
    for kind in dict.fromkeys(layer.kind for layer in network):
        places = [number for number, layer in enumerate(network) if layer.kind == kind]
        macs = sum(network[place].macs for place in places)
        row: dict[str, Any] = {"layers": kind, "count": len(places), "M MACs": macs / 1e6}
        for runtime, own in spent.items():
            row |= _columns(runtime, sum(own[place] for place in places), whole[runtime], macs)
        table.append(row | {"fastest of all ms": sum(best[place] for place in places)})
    rest = {"layers": "all else", "count": "", "M MACs": ""}
    total = {"layers": "whole", "count": len(network), "M MACs": sum(layer.macs for layer in network) / 1e6}
    left = {kind: whole[kind] - sum(spent[kind]) for kind in spent}
    for runtime in spent:
        rest |= _columns(runtime, left[runtime], whole[runtime], 0)
        total |= _columns(runtime, whole[runtime], whole[runtime], sum(layer.macs for layer in network))
    rest["fastest of all ms"] = min(left.values())
    total["fastest of all ms"] = sum(best) + min(left.values())
    return [*table, rest, total]


def bound(network: Sequence[Layer], rate: float, bandwidth: float) -> float:
    """Returns the milliseconds that the layers take at least.

    Args:
        network: The layers.
        rate: Billions of operations a second of the processor; a multiply-accumulate is two.
        bandwidth: GB/s at which it reads and writes.
    """
    return sum(max(2 * layer.macs / rate, 4 * layer.numbers / bandwidth) for layer in network) / 1e6


def _columns(runtime: str, ms: float, whole: float, macs: int) -> dict[str, Any]:
    """Returns the cells of a runtime: its time, the share of it, and the rate of its multiply-accumulates."""
    rate = 2 * macs / ms / 1e6 if macs else ""
    return {f"{runtime} ms": ms, f"{runtime} %": 100 * ms / whole, f"{runtime} GFLOP/s": rate}
