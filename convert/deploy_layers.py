"""Modules of the inference form that `deploy.py` builds: batch 1, fixed input size, no BatchNorm.

Shapes: C channels (`widths`: of q, k and v), H height, W width, N tokens along one axis.
"""

import torch
from torch import Tensor, nn

from convert.torch_model import SeaAttention, h_sigmoid

Widths = tuple[int, int, int]


class Shift(nn.Module):
    """Adds a constant: a table of positions [1, C, N] or biases [1, C, 1, 1]."""

    def __init__(self, value: Tensor):
        super().__init__()
        self.register_buffer("value", value)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.value


class Mean(nn.Module):
    """Mean over one axis, which stays: [1, C, H, W] -> [1, C, H, 1] or [1, C, 1, W]."""

    def __init__(self, axis: int):
        super().__init__()
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(self.axis, keepdim=True)


class HardSigmoid(nn.Module):
    """relu6(x + 3) / 6."""

    def forward(self, x: Tensor) -> Tensor:
        return h_sigmoid(x)


class MergedAttention(nn.Module):
    """`SeaAttention` with one convolution for q, k and v: [1, C, H, W] -> [1, C, H, W].

    Attributes:
        axial: q, k and v side by side, and the input -> [1, C, H, W].
        detail: detail enhancement, of q, k and v where `detail_of_qkv`, else of the input; None in the
            ablation without it.
        gate: of the attention, which then multiplies the detail; None in the ablations that do not multiply.
    """

    def __init__(self, attention: SeaAttention, to_qkv: nn.Conv2d, widths: Widths):
        super().__init__()
        self.to_qkv = to_qkv
        self.axial = SplitAxialAttention(attention, widths)
        self.detail, self.gate = None, None
        if attention.detail_input != "none":
            parts = attention.to_detail, attention.dwconv, attention.act, attention.pwconv
            self.detail = nn.Sequential(*(part for part in parts if not isinstance(part, nn.Identity)))
        self.detail_of_qkv = attention.detail_input == "qkv"
        if self.detail is not None and attention.detail_combine == "multiply":
            self.gate = HardSigmoid()

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.to_qkv(x)
        attended = self.axial(qkv, x)
        if self.detail is None:
            return attended
        detail = self.detail(qkv if self.detail_of_qkv else x)
        return attended + detail if self.gate is None else self.gate(attended) * detail


class SplitAxialAttention(nn.Module):
    """Axial attention as `SeaAttention` computes it, q, k and v one by one: [1, C_qkv, H, W] -> [1, C, H, W]."""

    def __init__(self, attention: SeaAttention, widths: Widths):
        super().__init__()
        self.attention, self.widths = attention, widths

    def forward(self, qkv: Tensor, x: Tensor) -> Tensor:
        q, k, v = qkv.split(self.widths, dim=1)
        return self.attention.axial(q, k, v, q if self.attention.adaptive_source == "q" else x)


class Gain(nn.Module):
    """Every group of channels times a map of its own, in three axes, as runtimes broadcast best.

    [1, C, H, W] times [1, G, H, W]: channels 0..C/G-1 times the first map, and so on.
    """

    def forward(self, x: Tensor, maps: Tensor) -> Tensor:
        groups = maps.shape[1]
        return (x.reshape(groups, x.shape[1] // groups, -1) * maps.reshape(groups, 1, -1)).reshape(x.shape)


class Squeeze(nn.Module):
    """What makes the mean over an axis that of SeaFormer++: q, k and v times softmax times length of the axis.

    In the ICLR model, where there is no map, it hands q, k and v on: [1, C_qkv, H, W] -> the same, twice.
    """

    def __init__(self, attention: SeaAttention, widths: Widths):
        super().__init__()
        self.map, self.gain, self.widths = attention.squeeze_map, Gain(), widths

    def forward(self, qkv: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
        if self.map is None:
            return qkv, qkv
        scores = self.map(source)
        _, _, height, width = scores.shape
        by_row = width * scores.softmax(-1)
        by_column = height * scores.transpose(-1, -2).softmax(-1).transpose(
            -1, -2
        )  # Delegates take the last axis.
        return self.weighted(qkv, by_row), self.weighted(qkv, by_column)

    def weighted(self, qkv: Tensor, weights: Tensor) -> Tensor:
        return torch.cat([self.gain(t, weights) for t in qkv.split(self.widths, dim=1)], dim=1)


class Expand(nn.Module):
    """The sum of what rows and columns gave, in SeaFormer++ times a gain.

    [1, C, H, 1] and [1, C, 1, W] -> [1, C, H, W].
    """

    def __init__(self, attention: SeaAttention):
        super().__init__()
        self.map, self.gain = attention.expand_map, Gain()
        self.sigmoid = attention.adaptive_expansion == "sigmoid"

    def forward(self, rows: Tensor, columns: Tensor, source: Tensor) -> Tensor:
        both = rows + columns
        if self.map is None:
            return both
        maps = self.map(source)
        return self.gain(both, 2 * maps.sigmoid() if self.sigmoid else 1 + maps)


class AxialAttention(nn.Module):
    """The same, with one mean per axis for q, k and v and one table per axis for the positions of q and k.

    Attributes:
        squeeze, expand: `Squeeze` before the means, `Expand` of what rows and columns gave.
        row_mean, column_mean: [1, C_qkv, H, W] -> [1, C_qkv, H, 1] and [1, C_qkv, 1, W].
        row_positions, column_positions: [1, C_q + C_k, N] -> the same.
        lead: leading axes of q, k and v, apart by heads.
        product: of two matrices behind these axes.
    """

    def __init__(self, attention: SeaAttention, widths: Widths):
        super().__init__()
        self.widths, self.scale = widths, attention.scale
        self.lead, self.product = (1, attention.heads), torch.matmul
        self.adaptive_source = attention.adaptive_source
        self.squeeze, self.expand = Squeeze(attention, widths), Expand(attention)
        self.row_mean, self.column_mean = Mean(3), Mean(2)
        self.row_positions = _joined(attention.pos_emb_rowq, attention.pos_emb_rowk)
        self.column_positions = _joined(attention.pos_emb_columnq, attention.pos_emb_columnk)
        self.proj_encode_row = attention.proj_encode_row
        self.proj_encode_column = attention.proj_encode_column
        self.proj = attention.proj

    def forward(self, qkv: Tensor, x: Tensor) -> Tensor:
        source = qkv[:, : self.widths[0]] if self.adaptive_source == "q" else x
        by_row, by_column = self.squeeze(qkv, source)
        rows = self.attend(self.row_mean(by_row).squeeze(3), self.row_positions)
        columns = self.attend(self.column_mean(by_column).squeeze(2), self.column_positions)
        rows = self.proj_encode_row(rows.unsqueeze(3))  # [1, C_v, H, 1]
        columns = self.proj_encode_column(columns.unsqueeze(2))  # [1, C_v, 1, W]
        return self.proj(qkv[:, -self.widths[2] :] + self.expand(rows, columns, source))

    def attend(self, qkv: Tensor, positions: nn.Module) -> Tensor:
        """Multi-head attention among N tokens: [1, C_qkv, N] -> [1, C_v, N]."""
        qk, v = qkv.split((self.widths[0] + self.widths[1], self.widths[2]), dim=1)
        q, k = positions(qk).split(self.widths[:2], dim=1)
        q, k, v = (t.reshape(*self.lead, -1, t.shape[2]) for t in (q, k, v))  # [..., key or value, N]
        scores = self.product(q.transpose(-1, -2), k) * self.scale  # [..., N queries, N keys]
        attended = self.product(v, scores.softmax(dim=-1).transpose(-1, -2))
        return attended.reshape(1, self.widths[2], -1)


def _joined(q: nn.Module, k: nn.Module) -> nn.Module:
    """The positions of q and k: `Shift` twice -> `Shift`, or the identity in the ablation without."""
    return Shift(torch.cat([q.value, k.value], dim=1)) if isinstance(q, Shift) else nn.Identity()
