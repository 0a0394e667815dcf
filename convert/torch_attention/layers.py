"""What the attention modules share: projections, multi-head attention, and the layout of feature maps."""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Setting(NamedTuple):
    """What shapes an attention module besides its width and its heads.

    Attributes:
        inner: Channels of queries, keys and values each; 0 takes the width of the module. Only some kinds read it.
        window: Side of a window, for the kinds that have windows.
        shift: Moves the windows by half their side.
        size: (height, width) of the feature map; only `axial_deeplab` needs it, because its tables fix it.
        normalized: False for the published module, with linear layers. True for a SeaFormer layer: projections have a
            BatchNorm instead of a bias, and the module starts at 0.
    """

    inner: int = 0
    window: int = 7
    shift: bool = False
    size: tuple[int, int] | None = None
    normalized: bool = False

    @property
    def start(self) -> float:
        """Initial strength of the module's output."""
        return 0.0 if self.normalized else 1.0

    def project(self, inputs: int, outputs: int, bias: bool = True) -> nn.Module:
        """Returns a projection to queries, keys or values: [..., inputs] -> [..., outputs]."""
        return LinearBN(inputs, outputs) if self.normalized else nn.Linear(inputs, outputs, bias=bias)

    def project_back(self, inputs: int, outputs: int) -> nn.Module:
        """Returns the projection of the attended values."""
        return LinearBN(inputs, outputs, self.start) if self.normalized else nn.Linear(inputs, outputs)

    def convolve(self, inputs: int, outputs: int) -> nn.Module:
        """Returns a 1x1 convolution to queries, keys or values: [B, inputs, H, W] -> [B, outputs, H, W]."""
        return ConvBN(inputs, outputs) if self.normalized else nn.Conv2d(inputs, outputs, 1)


class ChannelsLast(nn.Module):
    """An attention module on feature maps [B, C, H, W] that computes with the channels last.

    `forward` is for use in a convolutional network. `attend`, which a kind implements, maps [B, H, W, C] to the same
    shape.
    """

    def forward(self, x: Tensor) -> Tensor:
        return self.attend(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def attend(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class LinearBN(nn.Module):
    """Linear layer without bias, then BatchNorm: [..., inputs] -> [..., outputs]."""

    def __init__(self, inputs: int, outputs: int, scale: float = 1.0):
        super().__init__()
        self.c, self.bn = nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs)
        nn.init.constant_(self.bn.weight, scale)

    def forward(self, x: Tensor) -> Tensor:
        return normalize(self.bn, self.c(x))


class ConvBN(nn.Sequential):
    """1x1 convolution without bias, then BatchNorm."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.c, self.bn = nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)


def normalize(bn: nn.BatchNorm1d, x: Tensor) -> Tensor:
    """Applies a BatchNorm to the last axis of [..., C]."""
    return bn(x.reshape(-1, x.shape[-1])).reshape(x.shape)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Turns [..., N, heads * d] into [..., heads, N, d]."""
    return x.unflatten(-1, (heads, -1)).transpose(-2, -3)


def merge_heads(x: Tensor) -> Tensor:
    """Turns [..., heads, N, d] into [..., N, heads * d]."""
    return x.transpose(-2, -3).flatten(-2)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multi-head attention, softmax(q k^T / sqrt(d) + bias) v, of [..., heads, N, d]."""
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return torch.softmax(logits if bias is None else logits + bias, dim=-1) @ v
