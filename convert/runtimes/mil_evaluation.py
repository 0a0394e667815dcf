"""Evaluates the program in a Core ML file in PyTorch, operator by operator, as coremltools documents the operators.

The file's own bytes are read: operators and weights are those that Core ML will load. Operators compute in the type
that the program gives them, so that half precision rounds after each of them.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seaformer_jax.errors import UserError

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Function, Operation
    from torch import Tensor

Values = Mapping[str, Any]  # Name of an operator's input -> tensor, list of tensors, or a constant.


def read(package: Path, weights: Path) -> "Function":
    """Returns the only function of a package; `weights` is the folder of its weights.

    Raises:
        UserError: The program has an operator that this module does not know, so that it cannot be checked.
    """
    from coremltools.converters.mil.frontend.milproto import load
    from coremltools.models import utils

    spec = utils.load_spec(str(package))
    function = load.load(spec, spec.specificationVersion, str(weights)).functions["main"]
    unknown = {operation.op_type for operation in function.operations} - {"const", *_OPERATORS}
    if unknown:
        raise UserError(
            f"the Core ML program has the operators {', '.join(sorted(unknown))}, which cannot be evaluated here, so "
            "that the file cannot be checked; choose another format"
        )
    return function


def evaluate(function: "Function", inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the outputs of `function` by name; `inputs` has its inputs by name."""
    import torch

    values = {name: torch.from_numpy(array) for name, array in inputs.items()}
    with torch.no_grad():
        for operation in function.operations:
            if operation.op_type != "const":
                (output,) = operation.outputs
                values[output.name] = _OPERATORS[operation.op_type](_inputs(operation, values))
    return {output.name: values[output.name].numpy() for output in function.outputs}


def _inputs(operation: "Operation", values: "Mapping[str, Tensor]") -> Values:
    """Returns an operator's inputs: constants of several values as tensors, unless they describe axes."""

    def value(variable: Any) -> Any:
        import torch

        if isinstance(variable, list | tuple):
            return [value(each) for each in variable]
        if variable is None or variable.val is None:
            return variable and values[variable.name]
        if isinstance(variable.val, str):
            return variable.val
        array = np.asarray(variable.val)
        return torch.from_numpy(array) if array.dtype.kind == "f" and array.ndim else array.tolist()

    return {name: value(variable) for name, variable in operation.inputs.items()}


def _padded(values: Values, axes: int = 2) -> "Tensor":
    """Returns the input x with the zeros around it that a convolution or pooling asks for."""
    from torch.nn import functional as F

    if values["pad_type"] == "valid":
        return values["x"]
    if values["pad_type"] != "custom":
        raise UserError(f"the Core ML program pads by {values['pad_type']!r}; expected 'valid' or 'custom'")
    pad = values["pad"]  # Before and after, first axis first; PyTorch has the last axis first.
    return F.pad(
        values["x"], [side for axis in reversed(range(axes)) for side in pad[2 * axis : 2 * axis + 2]]
    )


def _conv(values: Values) -> "Tensor":
    from torch.nn import functional as F

    return F.conv2d(
        _padded(values),
        values["weight"],
        values.get("bias"),
        values["strides"],
        dilation=values["dilations"],
        groups=values["groups"],
    )


def _avg_pool(values: Values) -> "Tensor":
    from torch.nn import functional as F

    if values["ceil_mode"] or (values["exclude_padding_from_average"] and any(values["pad"])):
        raise UserError("the Core ML program pools with partial windows, which is not known here")
    return F.avg_pool2d(_padded(values), values["kernel_sizes"], values["strides"])


def _slice_by_index(values: Values) -> "Tensor":
    """Cuts out begin:end:stride along each axis; a mask stands for the first or last position."""
    axes = values["x"].ndim
    starts, ends = values.get("begin_mask") or [False] * axes, values.get("end_mask") or [False] * axes
    strides, squeezed = values.get("stride") or [1] * axes, values.get("squeeze_mask") or [False] * axes
    index = [
        begin if single else slice(None if first else begin, None if last else end, stride)
        for begin, end, stride, first, last, single in zip(
            values["begin"], values["end"], strides, starts, ends, squeezed, strict=True
        )
    ]
    return values["x"][tuple(index)]


def _matmul(values: Values) -> "Tensor":
    x = values["x"].mT if values["transpose_x"] else values["x"]
    return x @ (values["y"].mT if values["transpose_y"] else values["y"])


def _linear(values: Values) -> "Tensor":
    from torch.nn import functional as F

    return F.linear(values["x"], values["weight"], values.get("bias"))


def _upsample(mode: str, **options: bool) -> Callable[[Values], "Tensor"]:
    """Returns an interpolation to the size floor(scale * size), at half-pixel centres."""

    def upsample(values: Values) -> "Tensor":
        from torch.nn import functional as F

        if values.get("align_corners"):
            raise UserError("the Core ML program aligns corners; expected half-pixel centres")
        scales = values["scale_factor_height"], values["scale_factor_width"]
        size = [int(side * scale) for side, scale in zip(values["x"].shape[2:], scales, strict=True)]
        return F.interpolate(values["x"], size, mode=mode, **options)

    return upsample


def _cast(values: Values) -> "Tensor":
    import torch

    return values["x"].to({"fp16": torch.float16, "fp32": torch.float32}[values["dtype"]])


def _concat(values: Values) -> "Tensor":
    import torch

    return torch.cat(values["values"], values["axis"])


_OPERATORS: dict[str, Callable[[Values], "Tensor"]] = {
    "add": lambda values: values["x"] + values["y"],
    "avg_pool": _avg_pool,
    "cast": _cast,
    "clip": lambda values: values["x"].clamp(values["alpha"], values["beta"]),
    "concat": _concat,
    "conv": _conv,
    "linear": _linear,
    "matmul": _matmul,
    "mul": lambda values: values["x"] * values["y"],
    "reduce_mean": lambda values: values["x"].mean(values["axes"], values["keep_dims"]),
    "relu": lambda values: values["x"].relu(),
    "reshape": lambda values: values["x"].reshape(values["shape"]),
    "sigmoid": lambda values: values["x"].sigmoid(),
    "slice_by_index": _slice_by_index,
    "softmax": lambda values: values["x"].softmax(values["axis"]),
    "sub": lambda values: values["x"] - values["y"],
    "transpose": lambda values: values["x"].permute(values["perm"]),
    "upsample_bilinear": _upsample("bilinear", align_corners=False),
    "upsample_nearest_neighbor": _upsample("nearest"),
}
