"""The operators of Core ML programs in PyTorch, as coremltools documents them."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from seaformer_jax.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

Values = Mapping[str, Any]  # Name of an operator's input -> tensor, list of tensors, or a constant.


def _padded(values: Values) -> "Tensor":
    """Returns the input x with the zeros around it that a convolution or pooling asks for."""
    from torch.nn import functional as F

    if values["pad_type"] == "valid":
        return values["x"]
    if values["pad_type"] != "custom":
        raise UserError(f"the Core ML program pads by {values['pad_type']!r}; expected 'valid' or 'custom'")
    return F.pad(values["x"], _last_axis_first(values["pad"]))


def _last_axis_first(pad: list[int]) -> list[int]:
    """Turns (before, after) of each axis, first axis first, into PyTorch's order."""
    return [side for axis in reversed(range(len(pad) // 2)) for side in pad[2 * axis : 2 * axis + 2]]


def _pad(values: Values) -> "Tensor":
    from torch.nn import functional as F

    if values["mode"] not in ("constant", "reflect"):
        raise UserError(f"the Core ML program pads by {values['mode']!r}; expected 'constant' or 'reflect'")
    pad = _last_axis_first(values["pad"])  # Of the last axes, if it is shorter than the shape.
    if values["mode"] == "constant":
        return F.pad(values["x"], pad, value=values["constant_val"])
    while pad[-2:] == [0, 0]:  # PyTorch reflects the last axes only.
        pad = pad[:-2]
    return F.pad(values["x"], pad, mode="reflect")


def _split(values: Values) -> "Sequence[Tensor]":
    sizes = values.get("split_sizes") or values["x"].shape[values["axis"]] // values["num_splits"]
    return values["x"].split(sizes, values["axis"])


def _gather(values: Values) -> "Tensor":
    """Picks positions along an axis; the axes of the indices take its place."""
    import torch

    if values.get("batch_dims"):
        raise UserError("the Core ML program gathers by batch, which is not known here")
    indices, axis = torch.tensor(values["indices"]), values["axis"]
    picked = values["x"].index_select(axis, indices.flatten())
    return picked.unflatten(axis, indices.shape) if indices.ndim else picked.squeeze(axis)


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


def _stack(values: Values) -> "Tensor":
    import torch

    return torch.stack(values["values"], values["axis"])


def _expand_dims(values: Values) -> "Tensor":
    """Adds axes of size 1, which have the positions `axes` in the result."""
    x = values["x"]
    rank = x.ndim + len(values["axes"])
    for axis in sorted(axis % rank for axis in values["axes"]):
        x = x.unsqueeze(axis)
    return x


def _batch_norm(values: Values) -> "Tensor":
    from torch.nn import functional as F

    parameters = (values.get(name) for name in ("mean", "variance", "gamma", "beta"))
    return F.batch_norm(values["x"], *parameters, eps=values["epsilon"])


def _layer_norm(values: Values) -> "Tensor":
    from torch.nn import functional as F

    x = values["x"]
    if sorted(axis % x.ndim for axis in values["axes"]) != list(range(x.ndim - len(values["axes"]), x.ndim)):
        raise UserError(f"the Core ML program normalises axes {values['axes']}; expected the last ones")
    shape = x.shape[x.ndim - len(values["axes"]) :]
    return F.layer_norm(x, shape, values.get("gamma"), values.get("beta"), values["epsilon"])


def _gelu(values: Values) -> "Tensor":
    from torch.nn import functional as F

    if values["mode"] != "EXACT":
        raise UserError(f"the Core ML program has the GELU {values['mode']!r}; expected 'EXACT'")
    return F.gelu(values["x"])


# An operator returns its output, or the list of its outputs.
OPERATORS: dict[str, Callable[[Values], "Tensor | Sequence[Tensor]"]] = {
    "add": lambda values: values["x"] + values["y"],
    "avg_pool": _avg_pool,
    "batch_norm": _batch_norm,
    "cast": _cast,
    "clip": lambda values: values["x"].clamp(values["alpha"], values["beta"]),
    "concat": _concat,
    "conv": _conv,
    "exp": lambda values: values["x"].exp(),
    "expand_dims": _expand_dims,
    "gather": _gather,
    "gelu": _gelu,
    "layer_norm": _layer_norm,
    "linear": _linear,
    "matmul": _matmul,
    "mul": lambda values: values["x"] * values["y"],
    "pad": _pad,
    "real_div": lambda values: values["x"] / values["y"],
    "reduce_mean": lambda values: values["x"].mean(values["axes"], values["keep_dims"]),
    "reduce_sum": lambda values: values["x"].sum(values["axes"], values["keep_dims"]),
    "relu": lambda values: values["x"].relu(),
    "reshape": lambda values: values["x"].reshape(values["shape"]),
    "sigmoid": lambda values: values["x"].sigmoid(),
    "slice_by_index": _slice_by_index,
    "softmax": lambda values: values["x"].softmax(values["axis"]),
    "split": _split,
    "stack": _stack,
    "sub": lambda values: values["x"] - values["y"],
    "transpose": lambda values: values["x"].permute(values["perm"]),
    "upsample_bilinear": _upsample("bilinear", align_corners=False),
    "upsample_nearest_neighbor": _upsample("nearest"),
}
