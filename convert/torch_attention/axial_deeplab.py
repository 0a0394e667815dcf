"""Position-sensitive axial attention, with the names of csrhddlam/axial-deeplab."""

import torch
from torch import Tensor, nn

from convert.torch_attention.layers import ChannelsLast, Setting, normalize, split_heads


class PositionSensitiveAttention(nn.Module):
    """Attention among the L positions of axis -2: [B, M, L, C] -> [B, M, L, C]."""

    def __init__(self, width: int, groups: int, length: int, start: float):
        super().__init__()
        channels = width // groups
        self.qkv_transform = nn.Conv1d(width, 2 * width, 1, bias=False)
        self.bn_qkv = nn.BatchNorm1d(2 * width)
        self.bn_similarity = nn.BatchNorm1d(3 * groups)
        self.bn_output = nn.BatchNorm1d(2 * width)
        self.relative = nn.Parameter(torch.randn(2 * channels, 2 * length - 1) * channels**-0.5)
        nn.init.constant_(self.bn_output.weight, start)
        self.groups, self.parts = groups, (channels // 2, channels // 2, channels)

    def forward(self, x: Tensor) -> Tensor:
        qkv = normalize(self.bn_qkv, x @ self.qkv_transform.weight[:, :, 0].T)
        q, k, v = split_heads(qkv, self.groups).split(self.parts, dim=-1)  # [B, M, g, L, c / 2 or c]
        positions = torch.arange(x.shape[2])
        index = positions[:, None] - positions + x.shape[2] - 1
        tables = self.relative[:, index.flatten()].unflatten(1, index.shape)
        r_q, r_k, r_v = tables.split(self.parts)  # [channels, L, L]
        logits = [
            q @ k.transpose(-1, -2),
            _by_position(q, r_q.permute(1, 0, 2)),
            _by_position(k, r_k.permute(1, 0, 2)).transpose(-1, -2),
        ]
        stacked = torch.cat(logits, dim=2).movedim(2, -1)  # [B, M, L, L, 3g]
        weights = (
            normalize(self.bn_similarity, stacked).unflatten(-1, (3, -1)).sum(-2).softmax(3).movedim(-1, 2)
        )
        values = weights @ v, _by_position(weights, r_v.permute(1, 2, 0))
        both = torch.stack(values, dim=-1).transpose(2, 3).flatten(3)  # [B, M, L, C * 2]
        return normalize(self.bn_output, both).unflatten(-1, (-1, 2)).sum(-1)


def _by_position(x: Tensor, tables: Tensor) -> Tensor:
    """Multiplies the vector of a position by the matrix of that position: [..., L, m], [L, m, n] -> [..., L, n]."""
    return (x.unsqueeze(-2) @ tables).squeeze(-2)


class AxialDeeplabAttention(ChannelsLast):
    """Position-sensitive attention along the columns, then along the rows, for maps of one size."""

    def __init__(self, width: int, heads: int, setting: Setting):
        super().__init__()
        height, length = setting.size
        # The first name is spelt as in the official code.
        self.hight_block = PositionSensitiveAttention(width, 2 * heads, height, 1.0)
        self.width_block = PositionSensitiveAttention(width, 2 * heads, length, setting.start)

    def attend(self, x: Tensor) -> Tensor:
        return self.width_block(self.hight_block(x.transpose(1, 2)).transpose(1, 2))
