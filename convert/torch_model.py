"""SeaFormer classifiers in plain PyTorch, with the parameter names of the official release.

One file, no dependency but torch: copy it into a project or import it, then `load_state_dict` a checkpoint
that `convert.to_torch` wrote, or an official one (segmentation: with `torch_segmentation.py` beside it). It
follows the JAX model block by block, and the official `seaformer-cls/seaformer.py`
(github.com/fudan-zvg/SeaFormer) in every detail that changes a number:

- ReLU in the MobileNetV2 blocks, ReLU6 in SEA attention and in the FFN;
- BatchNorm scales that start at 0 in `proj`, `proj_encode_row` and `proj_encode_column`;
- stochastic depth that grows linearly and starts again at 0 in each stage;
- PyTorch's default initialisation of convolutions (the official classification training uses no other).

Shapes: B batch, C channels, H height, W width, N tokens along one axis.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

POSITIONS = 16  # Length of every table of position embeddings (official code).
VALUE_RATIO = 2  # Value channels per key channel of a head (official `attn_ratios`).

Row = tuple[int, int, int, int]  # One inverted residual: kernel, expansion, output channels, stride.


class Variant(NamedTuple):
    """Sizes of one SeaFormer (official `seaformer-cls/seaformer.py`).

    Attributes:
        stem: Output channels of the first convolution.
        heads: Attention heads.
        depths: SEA blocks after each of the last `len(depths)` stages.
        key_dims: Key channels per head in each of those stages.
        ffn_ratios: Hidden channels of the FFN per channel in each of those stages.
        stages: Inverted residuals of the stages at 1/4, 1/8, 1/16, 1/32 and 1/64 of the input size; a row is
            (kernel, expansion, output channels, stride).
        fusion_widths: Channels of the fusion blocks, which only segmentation has.

    The others are the options of the papers' ablations, see `SeaAttention` and, for `fusion`,
    `torch_segmentation.FusionBlock`.
    """

    stem: int
    heads: int
    depths: tuple[int, ...]
    key_dims: tuple[int, ...]
    ffn_ratios: tuple[int, ...]
    stages: tuple[tuple[Row, ...], ...]
    fusion_widths: tuple[int, ...]
    fusion: str = "sigmoid_multiply"
    detail_input: str = "qkv"
    detail_combine: str = "multiply"
    position_embedding: bool = True
    adaptive: str = "none"
    adaptive_source: str = "x"
    adaptive_shared: bool = False
    adaptive_expansion: str = "linear"
    upsample_ratio: float = 0.0
    upsample_width: int = 0


# fmt: off
VARIANTS = {
    "seaformer_tiny": Variant(
        stem=16, heads=4, depths=(2, 2), key_dims=(16, 24), ffn_ratios=(2, 4),
        stages=(((3, 1, 16, 1), (3, 4, 16, 2), (3, 3, 16, 1)),
                ((5, 3, 32, 2), (5, 3, 32, 1)),
                ((3, 3, 64, 2), (3, 3, 64, 1)),
                ((5, 3, 128, 2),),
                ((3, 6, 160, 2),)),
        fusion_widths=(64, 96)),
    "seaformer_small": Variant(
        stem=16, heads=6, depths=(3, 3), key_dims=(16, 24), ffn_ratios=(2, 4),
        stages=(((3, 1, 16, 1), (3, 4, 24, 2), (3, 3, 24, 1)),
                ((5, 3, 48, 2), (5, 3, 48, 1)),
                ((3, 3, 96, 2), (3, 3, 96, 1)),
                ((5, 4, 160, 2),),
                ((3, 6, 192, 2),)),
        fusion_widths=(96, 128)),
    "seaformer_base": Variant(
        stem=16, heads=8, depths=(4, 4), key_dims=(16, 24), ffn_ratios=(2, 4),
        stages=(((3, 1, 16, 1), (3, 4, 32, 2), (3, 3, 32, 1)),
                ((5, 3, 64, 2), (5, 3, 64, 1)),
                ((3, 3, 128, 2), (3, 3, 128, 1)),
                ((5, 4, 192, 2),),
                ((3, 6, 256, 2),)),
        fusion_widths=(128, 160)),
    "seaformer_large": Variant(
        stem=32, heads=8, depths=(3, 3, 3), key_dims=(16, 20, 24), ffn_ratios=(2, 4, 6),
        stages=(((3, 3, 32, 1), (3, 4, 64, 2), (3, 4, 64, 1)),
                ((5, 4, 128, 2), (5, 4, 128, 1)),
                ((3, 4, 192, 2), (3, 4, 192, 1)),
                ((5, 4, 256, 2),),
                ((3, 6, 320, 2),)),
        fusion_widths=(128, 160, 192)),
}
# fmt: on
VARIANTS |= {
    name.replace("_", "_plus_"): variant._replace(adaptive="both") for name, variant in VARIANTS.items()
}


class ConvBN(nn.Sequential):
    """Convolution, then BatchNorm: [B, C_in, H, W] -> [B, C_out, ceil(H / stride), ceil(W / stride)].

    Kernels are odd and padded by `kernel // 2`; there is no bias. `scale_init`: initial BatchNorm scale.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        scale_init: float = 1.0,
    ):
        super().__init__()
        self.c = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        nn.init.constant_(self.bn.weight, scale_init)


class InvertedResidual(nn.Module):
    """MobileNetV2 block: [B, C_in, H, W] -> [B, C_out, ceil(H / stride), ceil(W / stride)].

    1x1 expansion (left out where `expansion` is 1), depthwise convolution, linear 1x1 projection; the input
    is added where the shapes agree.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, expansion: int, stride: int):
        super().__init__()
        hidden = in_channels * expansion
        expand = [ConvBN(in_channels, hidden), nn.ReLU()] if expansion > 1 else []
        depthwise = [ConvBN(hidden, hidden, kernel, stride, groups=hidden), nn.ReLU()]
        self.conv = nn.Sequential(*expand, *depthwise, ConvBN(hidden, out_channels))
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileStage(nn.Sequential):
    """Inverted residuals `layer1`, `layer2`, ...; the first stage opens with the stride-2 stem."""

    def __init__(self, in_channels: int, rows: tuple[Row, ...], stem: bool):
        super().__init__()
        if stem:
            self.stem_block = nn.Sequential(ConvBN(3, in_channels, kernel=3, stride=2), nn.ReLU())
        for i, (kernel, expansion, out_channels, stride) in enumerate(rows, start=1):
            block = InvertedResidual(in_channels, out_channels, kernel, expansion, stride)
            self.add_module(f"layer{i}", block)
            in_channels = out_channels


def h_sigmoid(x: Tensor) -> Tensor:
    return F.relu6(x + 3) / 6


class SqueezeAxialPositionalEmbedding(nn.Module):
    """Adds a learnt table, resized linearly from 16 positions to N: [B, C, N] -> [B, C, N]."""

    def __init__(self, channels: int):
        super().__init__()
        self.pos_embed = nn.Parameter(torch.randn(1, channels, POSITIONS))

    def forward(self, x: Tensor) -> Tensor:
        return x + F.interpolate(self.pos_embed, size=x.shape[2], mode="linear", align_corners=False)


class AdaptiveMap(nn.Conv2d):
    """1x1 convolution without bias that starts at 0, divided by the square root of its input channels."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 1, bias=False)
        self.scale = in_channels**-0.5
        nn.init.zeros_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.scale


class SeaAttention(nn.Module):
    """Squeeze-enhanced axial attention: [B, C, H, W] -> [B, C, H, W] (paper eq. 4 and 5).

    Two branches share q, k and v. Squeeze axial attention attends among the H row means and among the W
    column means and is broadcast over the image; detail enhancement convolves the unsqueezed q, k and v. The
    first gates the second. The gate is 0.5 everywhere at initialisation, since `proj` ends in a BatchNorm
    that starts with scale 0.

    In SeaFormer++ weights that depend on the input replace the means ("squeeze") and give the broadcast a gain at
    every position ("expand"). The paper's formulas are not public, these are ours; the 1x1 convolutions that make
    the weights start at 0, where both steps are those of the ICLR model (see `AdaptiveMap`).

    Args:
        detail_input: What detail enhancement convolves: "qkv"; "conv", a 1x1 convolution of the input to its
            own width; "upconv", one to the width of qkv; "none": the attention alone is the output, ungated.
        detail_combine: "multiply", or "add": attention without its hard sigmoid plus detail.
        position_embedding: Whether positions are told apart.
        adaptive: "none", "both", "squeeze" or "expand".
        adaptive_source: What the weights are made from, "x" or "q".
        adaptive_shared: Whether all heads have the same weights.
        adaptive_expansion: Of the map's value a, "linear": 1 + a; "sigmoid": 2 sigmoid(a).
    """

    def __init__(
        self,
        channels: int,
        key_dim: int,
        heads: int,
        detail_input: str = "qkv",
        detail_combine: str = "multiply",
        position_embedding: bool = True,
        adaptive: str = "none",
        adaptive_source: str = "x",
        adaptive_shared: bool = False,
        adaptive_expansion: str = "linear",
    ):
        super().__init__()
        self.heads = heads
        self.detail_input, self.detail_combine = detail_input, detail_combine
        self.adaptive_source, self.adaptive_expansion = adaptive_source, adaptive_expansion
        self.scale = key_dim**-0.5
        qk = heads * key_dim
        value = heads * key_dim * VALUE_RATIO
        qkv = 2 * qk + value

        def position() -> nn.Module:
            return SqueezeAxialPositionalEmbedding(qk) if position_embedding else nn.Identity()

        # The official order of the attributes, so that the state dict lists the official order of names.
        self.to_q = ConvBN(channels, qk)
        self.to_k = ConvBN(channels, qk)
        self.to_v = ConvBN(channels, value)
        self.proj = nn.Sequential(nn.ReLU6(), ConvBN(value, channels, scale_init=0.0))
        self.proj_encode_row = nn.Sequential(nn.ReLU6(), ConvBN(value, value, scale_init=0.0))
        self.pos_emb_rowq = position()
        self.pos_emb_rowk = position()
        self.proj_encode_column = nn.Sequential(nn.ReLU6(), ConvBN(value, value, scale_init=0.0))
        self.pos_emb_columnq = position()
        self.pos_emb_columnk = position()
        weights = qk if adaptive_source == "q" else channels, 1 if adaptive_shared else heads
        self.squeeze_map = AdaptiveMap(*weights) if adaptive in ("both", "squeeze") else None
        self.expand_map = AdaptiveMap(*weights) if adaptive in ("both", "expand") else None
        if detail_input == "none":
            return
        detail = channels if detail_input == "conv" else qkv
        self.to_detail = nn.Identity() if detail_input == "qkv" else ConvBN(channels, detail)
        self.dwconv = ConvBN(detail, detail, kernel=3, groups=detail)
        self.act = nn.ReLU6()
        self.pwconv = ConvBN(detail, channels)

    def forward(self, x: Tensor) -> Tensor:
        q, k = self.to_q(x), self.to_k(x)  # [B, heads * key, H, W] each
        v = self.to_v(x)  # [B, heads * value, H, W]
        attended = self.axial(q, k, v, q if self.adaptive_source == "q" else x)
        if self.detail_input == "none":
            return attended
        detail = self.detail(torch.cat([q, k, v], dim=1) if self.detail_input == "qkv" else x)
        return attended + detail if self.detail_combine == "add" else h_sigmoid(attended) * detail

    def detail(self, x: Tensor) -> Tensor:
        """Detail enhancement kernel: q, k and v side by side, or the input -> [B, C, H, W]."""
        return self.pwconv(self.act(self.dwconv(self.to_detail(x))))

    def axial(self, q: Tensor, k: Tensor, v: Tensor, source: Tensor | None = None) -> Tensor:
        """Squeeze axial attention -> [B, C, H, W]; `source` [B, C_source, H, W] is for the adaptive weights."""
        (row_q, row_k, row_v), (column_q, column_k, column_v) = self.squeeze([q, k, v], source)
        rows = self.attend(self.pos_emb_rowq(row_q), self.pos_emb_rowk(row_k), row_v)
        columns = self.attend(self.pos_emb_columnq(column_q), self.pos_emb_columnk(column_k), column_v)
        rows = self.proj_encode_row(rows.unsqueeze(3))  # [B, heads * value, H, 1]
        columns = self.proj_encode_column(columns.unsqueeze(2))  # [B, heads * value, 1, W]
        # The shortcut from the unsqueezed v is in the official code only, not in the paper.
        return self.proj(v + self.expand(rows, columns, source))

    def squeeze(self, maps: list[Tensor], source: Tensor | None) -> tuple[list[Tensor], list[Tensor]]:
        """Maps [B, C, H, W] -> their row tokens [B, C, H] and their column tokens [B, C, W]."""
        if self.squeeze_map is None:
            return [t.mean(3) for t in maps], [t.mean(2) for t in maps]
        scores = self.squeeze_map(source)  # [B, heads or 1, H, W]
        heads = [t.unflatten(1, (scores.shape[1], -1)) for t in maps]
        by_row, by_column = scores.softmax(3), scores.softmax(2)
        rows = [torch.einsum("bgij,bgcij->bgci", by_row, t).flatten(1, 2) for t in heads]
        columns = [torch.einsum("bgij,bgcij->bgcj", by_column, t).flatten(1, 2) for t in heads]
        return rows, columns

    def expand(self, rows: Tensor, columns: Tensor, source: Tensor | None) -> Tensor:
        """[B, C, H, 1] and [B, C, 1, W] -> [B, C, H, W]."""
        if self.expand_map is None:
            return rows + columns
        gain = self.expand_map(source)  # [B, heads or 1, H, W]
        gain = 2 * gain.sigmoid() if self.adaptive_expansion == "sigmoid" else 1 + gain
        gain = gain.repeat_interleave(rows.shape[1] // gain.shape[1], dim=1)
        return gain * rows + gain * columns

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Multi-head attention among N tokens: [B, heads * key, N] twice, [B, heads * value, N] -> like v."""
        q, k, v = (t.unflatten(1, (self.heads, -1)) for t in (q, k, v))  # [B, heads, key or value, N]
        weights = (q.transpose(2, 3) @ k * self.scale).softmax(dim=3)  # [B, heads, N queries, N keys]
        return (v @ weights.transpose(2, 3)).flatten(1, 2)


class FFN(nn.Module):
    """1x1 convolution, 3x3 depthwise convolution (with bias, no BatchNorm), ReLU6, 1x1 convolution."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.fc1 = ConvBN(channels, hidden)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.act = nn.ReLU6()
        self.fc2 = ConvBN(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.dwconv(self.fc1(x))))


class DropPath(nn.Module):
    """Stochastic depth: in training, zeroes a sample with probability `rate`, else divides it by 1 - rate."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        return x * x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(keep) / keep


class Block(nn.Module):
    """SeaFormer layer: SEA attention and FFN, each in a residual without a norm: [B, C, H, W] -> the same."""

    def __init__(self, attention: SeaAttention, ffn: FFN, drop_path: float):
        super().__init__()
        self.attn = attention
        self.mlp = ffn
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(x))
        return x + self.drop_path(self.mlp(x))


class AttentionStage(nn.Sequential):
    """SEA blocks behind a stage; stochastic depth grows linearly from 0 to `drop_path_rate` among them."""

    def __init__(self, variant: Variant, index: int, channels: int, drop_path_rate: float):
        super().__init__()
        options = (
            variant.detail_input,
            variant.detail_combine,
            variant.position_embedding,
            variant.adaptive,
            variant.adaptive_source,
            variant.adaptive_shared,
            variant.adaptive_expansion,
        )
        hidden = channels * variant.ffn_ratios[index]
        self.transformer_blocks = nn.Sequential(
            *(
                Block(
                    SeaAttention(channels, variant.key_dims[index], variant.heads, *options),
                    FFN(channels, hidden),
                    rate,
                )
                for rate in torch.linspace(0, drop_path_rate, variant.depths[index]).tolist()
            )
        )


class Backbone(nn.Module):
    """Stages of inverted residuals (`smb1` to `smb5`); attention stages (`trans1`, ...) follow the last of them.

    Attributes:
        channels: Channels of the five stage outputs.
    """

    def __init__(self, variant: Variant, drop_path_rate: float = 0.1):
        super().__init__()
        self.channels = [rows[-1][2] for rows in variant.stages]
        self.mobile_only = len(variant.stages) - len(variant.depths)  # stages without attention
        in_channels = [variant.stem, *self.channels]
        for i, rows in enumerate(variant.stages):
            self.add_module(f"smb{i + 1}", MobileStage(in_channels[i], rows, stem=i == 0))
        for i, channels in enumerate(self.channels[self.mobile_only :]):
            self.add_module(f"trans{i + 1}", AttentionStage(variant, i, channels, drop_path_rate))

    def forward_features(self, x: Tensor) -> list[Tensor]:
        """Images [B, 3, H, W] -> the five stage outputs, at 1/4, 1/8, 1/16, 1/32, 1/64 (sizes rounded up)."""
        features = []
        for i in range(len(self.channels)):
            x = self.get_submodule(f"smb{i + 1}")(x)
            if i >= self.mobile_only:
                x = self.get_submodule(f"trans{i - self.mobile_only + 1}")(x)
            features.append(x)
        return features


class Upsampling(nn.Module):
    """Bilinear interpolation, an inverted residual and, where the widths differ, a 1x1 convolution.

    Of a model that was distilled: the map [B, C_in, h, w] of an image of H x W pixels becomes
    [B, C_out, ceil(r*H / stride), ceil(r*W / stride)], r*H and r*W rounded. Its names are not official.
    """

    def __init__(self, in_channels: int, out_channels: int, ratio: float, stride: int):
        super().__init__()
        self.block = InvertedResidual(in_channels, in_channels, kernel=5, expansion=4, stride=1)
        nn.init.zeros_(self.block.conv[-1].bn.weight)
        self.project = nn.Identity() if in_channels == out_channels else ConvBN(in_channels, out_channels)
        self.ratio, self.stride = ratio, stride

    def forward(self, x: Tensor, image_size: tuple[int, int]) -> Tensor:
        size = [-(-round(side * self.ratio) // self.stride) for side in image_size]
        return self.project(self.block(F.interpolate(x, size=size, mode="bilinear", align_corners=False)))


class SeaFormer(Backbone):
    """Classifier: images [B, 3, H, W] -> logits [B, num_classes].

    Images are RGB, scaled to [0, 1] and then normalised with the ImageNet mean and standard deviation. The
    head is the mean over the last feature map and one linear layer.
    """

    def __init__(self, variant: Variant, num_classes: int = 1000, drop_path_rate: float = 0.1):
        super().__init__(variant, drop_path_rate)
        width = variant.upsample_width or self.channels[-1]
        self.upsample = None
        if variant.upsample_ratio:
            stride = 2 << len(self.channels)
            self.upsample = Upsampling(self.channels[-1], width, variant.upsample_ratio, stride)
        self.linear = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        features = self.forward_features(x)[-1]
        if self.upsample is not None:
            features = self.upsample(features, x.shape[2:])
        return self.linear(features.mean(dim=(2, 3), keepdim=True).flatten(1))  # Delegates take it so.


def create_model(
    name: str, num_classes: int = 1000, drop_path_rate: float = 0.1, **options: str | bool
) -> SeaFormer:
    """Returns a SeaFormer classifier with random weights, in training mode.

    Args:
        name: A key of `VARIANTS`, such as "seaformer_tiny" or "seaformer_plus_tiny".
        num_classes: Width of the logits (the official code fixes 1000).
        drop_path_rate: Stochastic depth of the last block of each attention stage, in [0, 1).
        **options: Fields of `Variant` to change.

    Raises:
        ValueError: for an unknown name.
    """
    return SeaFormer(find(name)._replace(**options), num_classes, drop_path_rate)


def find(name: str) -> Variant:
    """Returns the sizes of `name`; ValueError where it is unknown."""
    if name not in VARIANTS:
        raise ValueError(f"unknown model {name!r}; expected one of {', '.join(VARIANTS)}")
    return VARIANTS[name]
