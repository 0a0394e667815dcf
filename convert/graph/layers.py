"""Modules of the inference form that `rewrites.py` builds: fixed input size, no BatchNorm, and batch 1 by default.

Axes of shapes: C channels, H height, W width, N tokens along one axis. `widths` are the channels of q, k and v.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from convert.torch_model import SeaAttention, h_sigmoid

Widths = tuple[int, int, int]


class Shift(nn.Module):
    """Adds a constant: a table of position embeddings [1, C, N] or biases [1, C, 1, 1]."""

    def __init__(self, value: Tensor):
        super().__init__()
        self.register_buffer("value", value)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.value


class Mean(nn.Module):
    """Mean over one axis, which is kept with size 1: [1, C, H, W] -> [1, C, H, 1] or [1, C, 1, W]."""

    def __init__(self, axis: int):
        super().__init__()
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(self.axis, keepdim=True)


class HardSigmoid(nn.Module):
    """Hard sigmoid, relu6(x + 3) / 6, of any shape."""

    def forward(self, x: Tensor) -> Tensor:
        return h_sigmoid(x)


class MergedAttention(nn.Module):
    """`SeaAttention` with one convolution for q, k and v: [1, C, H, W] -> [1, C, H, W].

    Attributes:
        to_qkv: Convolution to q, k and v, concatenated: [1, C, H, W] -> [1, C_qkv, H, W].
        axial: Axial attention: qkv and the block's input -> [1, C, H, W]; None in the ablation without it.
        detail: Detail enhancement; None in the ablation without it.
        detail_of_qkv: True if the input of `detail` is qkv, False if it is the block's input.
        gate: Function of the attention that multiplies the detail; None in the ablations that do not multiply.
    """

    def __init__(self, attention: SeaAttention, to_qkv: nn.Conv2d, widths: Widths):
        super().__init__()
        self.to_qkv = to_qkv
        self.axial = None if attention.proj is None else SplitAxialAttention(attention, widths)
        self.detail, self.gate = None, None
        # The parts without identities, so that the last of the sequence is always the last convolution.
        if attention.detail_input != "none":
            parts = attention.to_detail, attention.dwconv, attention.act, attention.pwconv
            self.detail = nn.Sequential(*(part for part in parts if not isinstance(part, nn.Identity)))
        self.detail_of_qkv = attention.detail_input == "qkv"
        if None not in (self.detail, self.axial) and attention.detail_combine == "multiply":
            self.gate = HardSigmoid()

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.to_qkv(x)
        detail = None if self.detail is None else self.detail(qkv if self.detail_of_qkv else x)
        if self.axial is None:
            return detail
        attended = self.axial(qkv, x)
        if detail is None:
            return attended
        return attended + detail if self.gate is None else self.gate(attended) * detail


class SplitAxialAttention(nn.Module):
    """Axial attention of `SeaAttention`, which takes q, k and v separately: [1, C_qkv, H, W] -> [1, C, H, W]."""

    def __init__(self, attention: SeaAttention, widths: Widths):
        super().__init__()
        self.attention, self.widths = attention, widths

    def forward(self, qkv: Tensor, x: Tensor) -> Tensor:
        q, k, v = qkv.split(self.widths, dim=1)
        return self.attention.axial(q, k, v, q if self.attention.adaptive_source == "q" else x)


class Gain(nn.Module):
    """Multiplies each group of channels by its own gain: [1, C, H, W], [1, G, H, W] -> [1, C, H, W].

    The gain is factor * map + shift. A convolution copies the G maps to all C channels, so that the channels stay in
    the layout in which runtimes convolve.

    Args:
        groups: Number of maps, G.
        widths: Channels of the tensors that are concatenated in the input; their sum is C. Each tensor consists of G
            groups of consecutive channels.
        factor, shift: Coefficients of the gain.
    """

    def __init__(self, groups: int, widths: Sequence[int], factor: float = 1.0, shift: float = 0.0):
        super().__init__()
        # owners[c] is the group of channel c; the convolution's weights are the one-hot rows times the factor.
        owners = torch.cat([torch.arange(groups).repeat_interleave(width // groups) for width in widths])
        self.spread = nn.Conv2d(groups, len(owners), 1)
        self.spread.weight.data = factor * nn.functional.one_hot(owners, groups).float().reshape(
            -1, groups, 1, 1
        )
        self.spread.bias.data.fill_(shift)

    def forward(self, x: Tensor, maps: Tensor) -> Tensor:
        return x * self.spread(maps)


class Squeeze(nn.Module):
    """Weights q, k and v so that a plain mean over an axis becomes the weighted mean of SeaFormer++.

    It returns two tensors [1, C_qkv, H, W]: one for the means of the rows, one for those of the columns. Each is the
    input times the softmax over the axis times the length of the axis. In the ICLR model both are the input itself.
    """

    def __init__(self, attention: SeaAttention, widths: Widths, size: tuple[int, int]):
        super().__init__()
        self.map = attention.squeeze_map
        if self.map is not None:
            height, width = size
            groups = self.map.out_channels
            # The factor is the length of the axis: the mean that follows divides by it.
            self.row_gain = Gain(groups, widths, width).to(self.map.weight)
            self.column_gain = Gain(groups, widths, height).to(self.map.weight)

    def forward(self, qkv: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
        if self.map is None:
            return qkv, qkv
        maps = self.map(source)
        by_row = _softmax(maps)
        by_column = _softmax(maps.transpose(-1, -2)).transpose(-1, -2)
        return self.row_gain(qkv, by_row), self.column_gain(qkv, by_column)


class Expand(nn.Module):
    """Adds the results of rows and columns, in SeaFormer++ times a gain.

    [1, C, H, 1], [1, C, 1, W] -> [1, C, H, W].
    """

    def __init__(self, attention: SeaAttention, width: int):
        super().__init__()
        self.map, self.sigmoid = attention.expand_map, attention.adaptive_expansion == "sigmoid"
        if self.map is not None:
            # The gain is 2 sigmoid(map) or 1 + map, see `SeaAttention`.
            constants = (2.0, 0.0) if self.sigmoid else (1.0, 1.0)
            self.gain = Gain(self.map.out_channels, [width], *constants).to(self.map.weight)

    def forward(self, rows: Tensor, columns: Tensor, source: Tensor) -> Tensor:
        both = rows + columns
        if self.map is None:
            return both
        maps = self.map(source)
        return self.gain(both, maps.sigmoid() if self.sigmoid else maps)


class AxialAttention(nn.Module):
    """`SplitAxialAttention` in fewer operators: [1, C_qkv, H, W] -> [1, C, H, W].

    q, k and v share one mean per axis; q and k share one table of positions per axis.

    Attributes:
        squeeze, expand: `Squeeze` before the means, `Expand` of what rows and columns gave.
        row_mean, column_mean: [1, C_qkv, H, W] -> [1, C_qkv, H, 1] and [1, C_qkv, 1, W].
        row_positions, column_positions: [1, C_q + C_k, N] -> the same.
        batch: Size of the batch; -1 for any.
        lead: Leading axes of q, k and v after the split into heads: (batch, heads), or (heads,) for `torch.bmm`.
        product: Function that multiplies two stacks of matrices with these leading axes.

    Args:
        attention: The trained attention, whose positions are `Shift`s already.
        widths: Channels of q, k and v.
        size: H and W of the feature map.
    """

    def __init__(self, attention: SeaAttention, widths: Widths, size: tuple[int, int]):
        super().__init__()
        self.widths = widths
        # A buffer, because a Python number would add a cast to the graph of a model in half precision.
        self.register_buffer("scale", torch.tensor(attention.scale, dtype=attention.proj[-1].weight.dtype))
        self.batch, self.lead, self.product = 1, (1, attention.heads), torch.matmul
        self.adaptive_source = attention.adaptive_source
        self.squeeze, self.expand = Squeeze(attention, widths, size), Expand(attention, widths[2])
        self.row_mean, self.column_mean = Mean(3), Mean(2)
        self.row_positions = _joined(attention.pos_emb_rowq, attention.pos_emb_rowk)
        self.column_positions = _joined(attention.pos_emb_columnq, attention.pos_emb_columnk)
        self.proj_encode_row = attention.proj_encode_row
        self.proj_encode_column = attention.proj_encode_column
        self.proj = attention.proj

    def forward(self, qkv: Tensor, x: Tensor) -> Tensor:
        # 1. Reduce the map to one token per row and one per column, and attend among each.
        source = qkv[:, : self.widths[0]] if self.adaptive_source == "q" else x
        by_row, by_column = self.squeeze(qkv, source)
        # Reshapes and slices, because XNNPACK takes neither squeeze nor unsqueeze nor split.
        rows = self.attend(self.row_mean(by_row).flatten(2), self.row_positions)
        columns = self.attend(self.column_mean(by_column).flatten(2), self.column_positions)
        # 2. Project the tokens, broadcast them over the map and add the unsqueezed v, as `SeaAttention` does.
        rows = self.proj_encode_row(rows.reshape(*rows.shape, 1))  # [1, C_v, H, 1]
        columns = columns.reshape(self.batch, self.widths[2], 1, columns.shape[2])
        columns = self.proj_encode_column(columns)  # [1, C_v, 1, W]
        return self.proj(qkv[:, -self.widths[2] :] + self.expand(rows, columns, source))

    def attend(self, qkv: Tensor, positions: nn.Module) -> Tensor:
        """Applies multi-head attention among N tokens: [1, C_qkv, N] -> [1, C_v, N]."""
        qk, v = _split(qkv, (self.widths[0] + self.widths[1], self.widths[2]))
        q, k = _split(positions(qk), self.widths[:2])
        # [..., key or value, N]
        q, k, v = (t.reshape(*self.lead, t.shape[1] // self.lead[-1], t.shape[2]) for t in (q, k, v))
        scores = self.product(q.transpose(-1, -2), k) * self.scale  # [..., N queries, N keys]
        attended = self.product(v, scores.softmax(dim=-1).transpose(-1, -2))
        return attended.reshape(self.batch, self.widths[2], attended.shape[-1])


def _split(x: Tensor, widths: Sequence[int]) -> list[Tensor]:
    """Splits [1, C, ...] into slices of `widths` channels."""
    ends = list(itertools.accumulate(widths))
    return [x[:, end - width : end] for end, width in zip(ends, widths, strict=True)]


def _softmax(maps: Tensor) -> Tensor:
    """Returns the softmax of [1, G, H, W] over the last axis, computed on three axes.

    With four axes, ExecuTorch mistakes the channels for the last axis. The first of the three axes is 1, because
    LiteRT's exporter mistakes [8, 8, 8] for a map with its channels last.
    """
    batch, groups, height, width = maps.shape
    return maps.reshape(1, batch * groups * height, width).softmax(-1).reshape(maps.shape)


def _joined(q: nn.Module, k: nn.Module) -> nn.Module:
    """Joins the `Shift`s of q's and k's positions into one; the identity in the ablation without positions."""
    return Shift(torch.cat([q.value, k.value], dim=1)) if isinstance(q, Shift) else nn.Identity()
