"""ACmix in windows and with a sliding neighbourhood, with the authors' names."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convert.torch_attention.layers import ChannelsLast, Setting
from convert.torch_attention.windows import attend_in_windows, bias_table, enter, leave

_TAPS, _WINDOW = 9, 7  # Of the convolution; side of the sliding neighbourhood.


def _rate(value: float) -> nn.Parameter:
    return nn.Parameter(torch.full((1,), value))


def _depthwise(width: int, groups: int) -> nn.Conv2d:
    """Returns the 3x3 convolution that adds up nine shifted maps at the start."""
    conv = nn.Conv2d(_TAPS * groups, width, 3, padding=1, groups=groups, bias=False)
    nn.init.zeros_(conv.weight)
    for tap in range(_TAPS):
        conv.weight.data[:, tap, tap // 3, tap % 3] = 1
    return conv


def _convolved(fc: nn.Conv2d, conv: nn.Conv2d, qkv: Tensor, heads: int) -> Tensor:
    """The convolution path: [B, 3 * heads * d, H, W] -> [B, d * heads, H, W]."""
    batch, _, height, width = qkv.shape
    maps = fc(qkv.reshape(batch, 3 * heads, -1, height * width))  # [B, 9, d, H * W]
    return conv(maps.transpose(1, 2).reshape(batch, -1, height, width))


class AcmixSwinAttention(ChannelsLast):
    """The weighted sum of window attention and of a convolution of the same queries, keys and values."""

    def __init__(self, width: int, heads: int, setting: Setting):
        super().__init__()
        self.relative_position_bias_table = bias_table(setting.window, heads)
        self.rate1, self.rate2 = _rate(0.5), _rate(0.5 * setting.start)
        self.qkv, self.proj = setting.project(width, 3 * width), setting.project_back(width, width)
        self.fc = nn.Conv2d(3 * heads, _TAPS, 1)
        self.dep_conv = _depthwise(width, width // heads)
        self.heads, self.window, self.shift = heads, setting.window, setting.shift

    def attend(self, x: Tensor) -> Tensor:
        padded, shift = enter(x, self.window, self.shift)
        qkv, table = self.qkv(padded), self.relative_position_bias_table
        attended = self.proj(attend_in_windows(qkv, table, self.heads, self.window, shift))
        convolved = _convolved(self.fc, self.dep_conv, qkv.permute(0, 3, 1, 2), self.heads)
        out = self.rate1 * attended + self.rate2 * convolved.permute(0, 2, 3, 1)
        return leave(out, shift, x.shape)


class AcmixConvAttention(nn.Module):
    """The weighted sum of attention to the 7x7 neighbourhood and of a convolution: [B, C, H, W] -> [B, C, H, W]."""

    def __init__(self, width: int, heads: int, setting: Setting):
        super().__init__()
        self.heads = 2 * heads
        self.rate1, self.rate2 = (_rate(0.5 * setting.start) for _ in range(2))
        self.conv1, self.conv2, self.conv3 = (setting.convolve(width, width) for _ in range(3))
        self.conv_p = nn.Conv2d(2, width // self.heads, 1)
        self.fc = nn.Conv2d(3 * self.heads, _TAPS, 1, bias=False)
        self.dep_conv = _depthwise(width, width // self.heads)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.conv1(x), self.conv2(x), self.conv3(x)
        convolved = _convolved(self.fc, self.dep_conv, torch.cat([q, k, v], dim=1), self.heads)
        return self.rate1 * self.neighbourhood(q, k, v) + self.rate2 * convolved

    def neighbourhood(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attends to the 49 positions around each one, reflected at the borders."""
        height, width = q.shape[2:]
        q = q.unflatten(1, (self.heads, -1)) * (q.shape[1] // self.heads) ** -0.5  # [B, heads, d, H, W]
        y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        here = self.conv_p(torch.stack([x, y])[None].to(q))  # [1, d, H, W]
        logits = []
        for key, there in zip(_neighbours(k), _neighbours(here), strict=True):
            logits.append((q * (key.unflatten(1, (self.heads, -1)) + (here - there)[:, None])).sum(2))
        weights = torch.stack(logits, dim=2).softmax(2)  # [B, heads, 49, H, W]
        values = [value.unflatten(1, (self.heads, -1)) for value in _neighbours(v)]
        return sum(weights[:, :, n, None] * value for n, value in enumerate(values)).flatten(1, 2)


def _neighbours(x: Tensor) -> list[Tensor]:
    """Returns the 49 shifted copies of [B, C, H, W], in reading order."""
    height, width = x.shape[2:]
    padded = F.pad(x, (_WINDOW // 2,) * 4, mode="reflect")
    return [padded[:, :, i : i + height, j : j + width] for i in range(_WINDOW) for j in range(_WINDOW)]
