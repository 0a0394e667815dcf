"""Modules of the inference form that `rewrites.py` builds: fixed input size, no BatchNorm, and batch 1 by default.

Axes of shapes: C channels, H height, W width, N tokens along one axis. `widths` are the channels of q, k and v.
"""

import itertools
import math
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


class Maps(nn.Module):
    """The maps of SeaFormer++'s adaptive steps in one convolution: [1, C, H, W] -> [1, steps * G, H, W].

    Attributes:
        squeeze, expand: First channel of that step's G maps; None if the step is not adaptive.
        groups: Number of maps of a step, G.
    """

    def __init__(self, attention: SeaAttention):
        super().__init__()
        convs = [conv for conv in (attention.squeeze_map, attention.expand_map) if conv is not None]
        self.groups = convs[0].out_channels
        self.squeeze = None if attention.squeeze_map is None else 0
        self.expand = None if attention.expand_map is None else self.groups * (len(convs) - 1)
        weight = torch.cat([conv.weight for conv in convs])
        self.conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1).to(weight)
        self.conv.weight.copy_(weight), self.conv.bias.zero_()

    def forward(self, source: Tensor) -> Tensor:
        return self.conv(source)

    def spread(self, first: int, widths: Sequence[int], factor: float = 1.0, shift: float = 0.0) -> nn.Conv2d:
        """Returns a convolution that copies G maps, those from channel `first` on, to the channels of their groups.

        A convolution keeps the channels in the layout in which runtimes convolve. Its output is factor * map + shift.

        Args:
            first: `squeeze` or `expand`.
            widths: Channels of the tensors that are side by side in what the output multiplies. Each of them consists
                of G groups of consecutive channels.
            factor, shift: Coefficients.
        """
        owners = [torch.arange(self.groups).repeat_interleave(width // self.groups) for width in widths]
        copies = nn.functional.one_hot(first + torch.cat(owners), self.conv.out_channels)
        conv = nn.Conv2d(copies.shape[1], copies.shape[0], 1).to(self.conv.weight)
        conv.weight.copy_(factor * copies.reshape(conv.weight.shape)), conv.bias.fill_(shift)
        return conv


class Squeeze(nn.Module):
    """Reduces q, k and v to a token per row and per column: [1, C_qkv, H, W] -> [1, C_qkv, H, 1], [1, C_qkv, 1, W].

    In SeaFormer++ the mean has the weights softmax(map) along its axis. As exp(map) is the same for both axes, one
    product serves both, and the softmax divides after the mean: mean(exp(map) t) / mean(exp(map)).

    The softmax of a runtime subtracts the largest value before it takes the exponential. Here maps are clamped to
    +-ln(largest number) / 2, 44 in float32. Beyond it the result is not that of the trained model, but it is finite.

    Attributes:
        arithmetic: Type that a runtime computes in, whatever the type of the graph; None if it is that of the graph.
    """

    def __init__(self, maps: Maps | None, widths: Widths):
        super().__init__()
        self.arithmetic: torch.dtype | None = None
        self.row_mean, self.column_mean = Mean(3), Mean(2)
        adaptive = maps is not None and maps.squeeze is not None
        self.spread = maps.spread(maps.squeeze, widths) if adaptive else None

    def forward(self, qkv: Tensor, maps: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.spread is None:
            return self.row_mean(qkv), self.column_mean(qkv)
        limit = math.log(torch.finfo(self.arithmetic or maps.dtype).max) / 2
        weights = self.spread(maps.clamp(-limit, limit).exp())
        product = qkv * weights
        return (
            self.row_mean(product) / self.row_mean(weights),
            self.column_mean(product) / self.column_mean(weights),
        )


class Expand(nn.Module):
    """Adds the results of rows and columns, in SeaFormer++ times a gain.

    [1, C, H, 1], [1, C, 1, W] -> [1, C, H, W].
    """

    def __init__(self, maps: Maps | None, width: int, *, sigmoid: bool):
        super().__init__()
        adaptive = maps is not None and maps.expand is not None
        # The gain is 2 sigmoid(map) or 1 + map, see `SeaAttention`.
        constants = (2.0, 0.0) if sigmoid else (1.0, 1.0)
        self.spread = maps.spread(maps.expand, [width], *constants) if adaptive else None
        self.sigmoid = sigmoid

    def forward(self, rows: Tensor, columns: Tensor, maps: Tensor | None) -> Tensor:
        if self.spread is None:
            return rows + columns
        return (rows + columns) * self.spread(maps.sigmoid() if self.sigmoid else maps)


class AxialAttention(nn.Module):
    """`SplitAxialAttention` in fewer operators: [1, C_qkv, H, W] -> [1, C, H, W].

    q, k and v share one mean per axis; q and k share one table of positions per axis.

    Attributes:
        maps: `Maps` of SeaFormer++; None in the ICLR model.
        squeeze, expand: `Squeeze` to tokens, `Expand` of what rows and columns gave.
        row_positions, column_positions: [1, C_q + C_k, N] -> the same.
        batch: Size of the batch; -1 for any.
        lead: Leading axes of q, k and v after the split into heads: (batch, heads), or (heads,) for `torch.bmm`.
        product: Function that multiplies two stacks of matrices with these leading axes.

    Args:
        attention: The trained attention, whose positions are `Shift`s already.
        widths: Channels of q, k and v.
    """

    def __init__(self, attention: SeaAttention, widths: Widths):
        super().__init__()
        self.widths = widths
        # A buffer, because a Python number would add a cast to the graph of a model in half precision.
        self.register_buffer("scale", torch.tensor(attention.scale, dtype=attention.proj[-1].weight.dtype))
        self.batch, self.lead, self.product = 1, (1, attention.heads), torch.matmul
        self.adaptive_source = attention.adaptive_source
        plain = attention.squeeze_map is None and attention.expand_map is None
        self.maps = None if plain else Maps(attention)
        self.squeeze = Squeeze(self.maps, widths)
        self.expand = Expand(self.maps, widths[2], sigmoid=attention.adaptive_expansion == "sigmoid")
        self.row_positions = _joined(attention.pos_emb_rowq, attention.pos_emb_rowk)
        self.column_positions = _joined(attention.pos_emb_columnq, attention.pos_emb_columnk)
        self.proj_encode_row = attention.proj_encode_row
        self.proj_encode_column = attention.proj_encode_column
        self.proj = attention.proj

    def forward(self, qkv: Tensor, x: Tensor) -> Tensor:
        # 1. Reduce the map to one token per row and one per column, and attend among each.
        source = qkv[:, : self.widths[0]] if self.adaptive_source == "q" else x
        maps = None if self.maps is None else self.maps(source)
        rows, columns = self.squeeze(qkv, maps)
        # Reshapes and slices, because XNNPACK takes neither squeeze nor unsqueeze nor split.
        rows = self.attend(rows.flatten(2), self.row_positions)
        columns = self.attend(columns.flatten(2), self.column_positions)
        # 2. Project the tokens, broadcast them over the map and add the unsqueezed v, as `SeaAttention` does.
        rows = self.proj_encode_row(rows.reshape(*rows.shape, 1))  # [1, C_v, H, 1]
        columns = columns.reshape(self.batch, self.widths[2], 1, columns.shape[2])
        columns = self.proj_encode_column(columns)  # [1, C_v, 1, W]
        return self.proj(qkv[:, -self.widths[2] :] + self.expand(rows, columns, maps))

    def attend(self, qkv: Tensor, positions: nn.Module) -> Tensor:
        """Applies multi-head attention among N tokens: [1, C_qkv, N] -> [1, C_v, N]."""
        parts = self.split(qkv, positions)
        # [..., key or value, N]
        q, k, v = (t.reshape(*self.lead, t.shape[1] // self.lead[-1], t.shape[2]) for t in parts)
        scores = self.product(q.transpose(-1, -2), k) * self.scale  # [..., N queries, N keys]
        attended = self.product(v, scores.softmax(dim=-1).transpose(-1, -2))
        return attended.reshape(self.batch, self.widths[2], attended.shape[-1])

    def split(self, qkv: Tensor, positions: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        """Splits [1, C_qkv, N] into q and k, with their positions, and v."""
        qk, v = _split(qkv, (self.widths[0] + self.widths[1], self.widths[2]))
        return (*_split(positions(qk), self.widths[:2]), v)


def _split(x: Tensor, widths: Sequence[int]) -> list[Tensor]:
    """Splits [1, C, ...] into slices of `widths` channels."""
    ends = list(itertools.accumulate(widths))
    return [x[:, end - width : end] for end, width in zip(ends, widths, strict=True)]


def _joined(q: nn.Module, k: nn.Module) -> nn.Module:
    """Joins the `Shift`s of q's and k's positions into one; the identity in the ablation without positions."""
    return Shift(torch.cat([q.value, k.value], dim=1)) if isinstance(q, Shift) else nn.Identity()
