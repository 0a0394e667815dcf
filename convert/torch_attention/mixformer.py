"""Mixing attention of MixFormer, with PaddleClas' names."""

import torch
from torch import Tensor, nn

from convert.torch_attention.layers import ChannelsLast, Setting
from convert.torch_attention.windows import attend_in_windows, bias_table, pad


def _gate(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """1x1 convolution, BatchNorm, GELU, 1x1 convolution; the sigmoid follows where it is used."""
    return nn.Sequential(
        nn.Conv2d(inputs, hidden, 1), nn.BatchNorm2d(hidden), nn.GELU(), nn.Conv2d(hidden, outputs, 1)
    )


class MixingAttention(ChannelsLast):
    """Window attention on half the channels beside a depthwise 3x3 convolution; each gates the other."""

    def __init__(self, width: int, heads: int, setting: Setting):
        super().__init__()
        half = width // 2
        self.relative_position_bias_table = bias_table(setting.window, heads)
        self.proj_attn, self.proj_attn_norm = nn.Linear(width, half), nn.LayerNorm(half)
        self.proj_cnn, self.proj_cnn_norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.dwconv3x3 = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width), nn.BatchNorm2d(width), nn.GELU()
        )
        self.channel_interaction = _gate(width, width // 8, half)
        self.projection, self.conv_norm = nn.Conv2d(width, half, 1), nn.BatchNorm2d(half)
        self.qkv = setting.project(half, 3 * half)
        self.spatial_interaction = _gate(half, width // 16, 1)
        self.attn_norm = nn.LayerNorm(half)
        self.proj = setting.project_back(width, width)
        self.heads, self.window = heads, setting.window

    def attend(self, x: Tensor) -> Tensor:
        padded = pad(x, self.window)
        convolved = self.dwconv3x3(self.proj_cnn_norm(self.proj_cnn(padded)).permute(0, 3, 1, 2))
        gate = self.channel_interaction(convolved.mean((2, 3), keepdim=True)).sigmoid().permute(0, 2, 3, 1)
        attended = self._attend(self.proj_attn_norm(self.proj_attn(padded)), gate)
        gate = self.spatial_interaction(attended.permute(0, 3, 1, 2)).sigmoid()
        convolved = self.conv_norm(gate * self.projection(convolved)).permute(0, 2, 3, 1)
        out = self.proj(torch.cat([self.attn_norm(attended), convolved], dim=-1))
        return out[:, : x.shape[1], : x.shape[2]]

    def _attend(self, x: Tensor, gate: Tensor) -> Tensor:
        """Window attention of [B, H, W, C / 2], whose values are scaled by `gate` [B, 1, 1, C / 2]."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        qkv = torch.cat([q, k, gate * v], dim=-1)
        return attend_in_windows(qkv, self.relative_position_bias_table, self.heads, self.window, 0)
