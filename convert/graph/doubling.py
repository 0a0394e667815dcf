"""The nearest interpolation of a detector's feature pyramid, in the form that each runtime computes fastest.

A map of the pyramid is enlarged to the size of the next finer one, [1, C, h, w] -> [1, C, H, W] with H = 2h - 1 or 2h
and W = 2w - 1 or 2w. There, nearest interpolation to H x W is every position twice, cut to H x W. Interpolation by
exactly 2 is the same in all runtimes, while LiteRT takes other positions than PyTorch for a factor such as 11 / 6.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convert.graph.replacing import replace
from convert.torch_detection import Enlarge

Size = tuple[int, int]


class Double(nn.Module):
    """Doubling by interpolation: for ONNX Runtime and ncnn."""

    def forward(self, x: Tensor, size: Size) -> Tensor:
        doubled = self.doubled(x)
        # ExecuTorch would leave a cut that cuts nothing outside XNNPACK.
        return doubled if tuple(doubled.shape[2:]) == tuple(size) else doubled[:, :, : size[0], : size[1]]

    def doubled(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2.0, mode="nearest")


class DoubleByConcatenation(Double):
    """Doubling by copies, cheap where channels are last: for LiteRT, whose XNNPACK takes no nearest interpolation."""

    def doubled(self, x: Tensor) -> Tensor:
        _, channels, height, width = x.shape
        x = x.permute(0, 2, 3, 1)
        columns = torch.cat([x, x], 3).reshape(1, height, 1, 2 * width * channels)
        rows = torch.cat([columns, columns], 3).reshape(1, 2 * height, 2 * width, channels)
        return rows.permute(0, 3, 1, 2)


class DoubleByConvolution(Double):
    """Doubling by a transposed depthwise convolution of ones: for ExecuTorch, whose XNNPACK takes neither."""

    def __init__(self, width: int):
        super().__init__()
        self.copies = nn.ConvTranspose2d(width, width, 2, stride=2, groups=width, bias=False)
        nn.init.ones_(self.copies.weight)
        self.requires_grad_(False)

    def doubled(self, x: Tensor) -> Tensor:
        return self.copies(x)


def double(model: nn.Module, input_size: Size) -> None:
    """Replaces the interpolation of the feature pyramid by `Double`, in place."""
    replace(model, Enlarge, lambda _: Double())


def by_concatenation(model: nn.Module) -> None:
    """Replaces every `Double` by `DoubleByConcatenation`, in place."""
    replace(model, Double, lambda _: DoubleByConcatenation())


def by_convolution(model: nn.Module) -> None:
    """Replaces every `Double` by `DoubleByConvolution`, in place."""
    for module in model.modules():
        if isinstance(getattr(module, "enlarge", None), Double):
            module.enlarge = DoubleByConvolution(module.width)
