"""Axial attention in its sum form, with lucidrains' names."""

from torch import Tensor, nn

from convert.torch_attention.layers import ChannelsLast, Setting, attend, merge_heads, split_heads


class AxisAttention(nn.Module):
    """Attention among the positions of axis -2: [B, M, N, C] -> [B, M, N, C]."""

    def __init__(self, width: int, heads: int, setting: Setting):
        super().__init__()
        inner = setting.inner or width
        self.to_q, self.to_kv = (setting.project(width, n * inner, bias=False) for n in (1, 2))
        self.to_out = setting.project_back(inner, width)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        k, v = self.to_kv(x).chunk(2, dim=-1)
        q, k, v = (split_heads(t, self.heads) for t in (self.to_q(x), k, v))
        return self.to_out(merge_heads(attend(q, k, v)))


class AlongAxis(nn.Module):
    """Attention along one axis of a map [B, H, W, C]: 1 for the columns, 2 for the rows."""

    def __init__(self, fn: nn.Module, axis: int):
        super().__init__()
        self.fn, self.axis = fn, axis

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(x) if self.axis == 2 else self.fn(x.transpose(1, 2)).transpose(1, 2)


class AxialSumAttention(ChannelsLast):
    """Every position attends to its column and to its row; the two results are added."""

    def __init__(self, width: int, heads: int, setting: Setting):
        super().__init__()
        self.axial_attentions = nn.ModuleList(
            [AlongAxis(AxisAttention(width, heads, setting), axis) for axis in (1, 2)]
        )

    def attend(self, x: Tensor) -> Tensor:
        return self.axial_attentions[0](x) + self.axial_attentions[1](x)
