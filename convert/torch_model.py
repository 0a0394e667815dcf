"""SeaFormer classifiers in plain PyTorch, with the parameter names of the official release.

This file needs no package but torch. Copy it into a project or import it, then `load_state_dict` a checkpoint that
`convert.to_torch` wrote, or an official one. Segmentation models also need `torch_segmentation.py`, and models with
another attention than SEA the folder `torch_attention`. The code follows the JAX model block by block, and the
official `seaformer-cls/seaformer.py` (github.com/fudan-zvg/SeaFormer) in every detail that changes a number:

- ReLU in the MobileNetV2 blocks, ReLU6 in SEA attention and in the FFN;
- BatchNorm scales that start at 0 in `proj`, `proj_encode_row` and `proj_encode_column`;
- stochastic depth that grows linearly from 0 within each stage;
- PyTorch's default initialisation of convolutions (the official classification training uses no other).

Axes of shapes: B batch, C channels, H height, W width, N tokens along one axis.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

POSITIONS = 16  # Length of every table of position embeddings (official code).
VALUE_RATIO = 2  # Value channels per key channel in each head (official `attn_ratios`).

Row = tuple[int, int, int, int]  # One inverted residual: kernel, expansion, output channels, stride.


class Variant(NamedTuple):
    """Sizes and options of one SeaFormer; the sizes are from the official `seaformer-cls/seaformer.py`.

    Attributes:
        stem: Output channels of the first convolution.
        heads: Number of attention heads.
        depths: Number of SEA blocks after each of the last `len(depths)` stages.
        key_dims: Key channels per head in each of those stages.
        ffn_ratios: Hidden channels of the FFN per input channel in each of those stages.
        stages: Inverted residuals of the stages at 1/4, 1/8, 1/16, 1/32 and 1/64 of the input size. A row is
            (kernel, expansion, output channels, stride).
        fusion_widths: Output channels of the fusion blocks, which only segmentation models have.
        fusion: Option of `torch_segmentation.FusionBlock`.
        attention: Kind of attention: "sea" or "sea_plus"; "enhancement" (SEA's detail enhancement alone); "none"; or
            a function (variant, index of the stage, channels) -> module, see `torch_attention.kinds.chosen`.
        attention_widths: Channels of queries, keys and values in each stage with attention; () takes the stage's.
        attention_window: Side of a window, for the kinds that have windows.
        attention_input: Height and width of the images, for the tables of axial_deeplab.
        detail_input, detail_combine, position_embedding: Options of the papers' ablations, see `SeaAttention`.
        adaptive, adaptive_source, adaptive_shared, adaptive_expansion: Options of SeaFormer++, see `SeaAttention`.
        upsample_ratio: Ratio of the `Upsampling` module of a distilled student; 0 for no module.
        upsample_width: Output channels of that module; 0 keeps the channels of its input.
        neck_width: Channels of a detector's neck and head.
        tower_convs: Convolutions of each tower of a detector's head, without the last one.
        anchor_scale: Side of a level's smallest square anchor / stride of the level. The network does not use it.
    """

    stem: int
    heads: int
    depths: tuple[int, ...]
    key_dims: tuple[int, ...]
    ffn_ratios: tuple[int, ...]
    stages: tuple[tuple[Row, ...], ...]
    fusion_widths: tuple[int, ...]
    fusion: str = "sigmoid_multiply"
    attention: Any = "sea"
    attention_widths: tuple[int, ...] = ()
    attention_window: int = 7
    attention_input: tuple[int, ...] = ()
    detail_input: str = "qkv"
    detail_combine: str = "multiply"
    position_embedding: bool = True
    adaptive: str = "none"
    adaptive_source: str = "x"
    adaptive_shared: bool = False
    adaptive_expansion: str = "linear"
    upsample_ratio: float = 0.0
    upsample_width: int = 0
    neck_width: int = 256
    tower_convs: int = 4
    anchor_scale: float = 4.0


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

    The convolution has no bias. Its kernel is odd and its padding is `kernel // 2`. `scale_init` is the initial scale
    of the BatchNorm.
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

    The block is a 1x1 expansion (left out if `expansion` is 1), a depthwise convolution and a linear 1x1 projection.
    The input is added if input and output have the same shape.
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
    """Inverted residuals `layer1`, `layer2`, ...; the first stage begins with the stride-2 stem."""

    def __init__(self, in_channels: int, rows: tuple[Row, ...], stem: bool):
        super().__init__()
        if stem:
            self.stem_block = nn.Sequential(ConvBN(3, in_channels, kernel=3, stride=2), nn.ReLU())
        for i, (kernel, expansion, out_channels, stride) in enumerate(rows, start=1):
            block = InvertedResidual(in_channels, out_channels, kernel, expansion, stride)
            self.add_module(f"layer{i}", block)
            in_channels = out_channels


def h_sigmoid(x: Tensor) -> Tensor:
    """Returns the hard sigmoid, relu6(x + 3) / 6, of any shape."""
    return F.relu6(x + 3) / 6


class SqueezeAxialPositionalEmbedding(nn.Module):
    """Adds a learnt table that is resized linearly from 16 positions to N: [B, C, N] -> [B, C, N]."""

    def __init__(self, channels: int):
        super().__init__()
        self.pos_embed = nn.Parameter(torch.randn(1, channels, POSITIONS))

    def forward(self, x: Tensor) -> Tensor:
        return x + F.interpolate(self.pos_embed, size=x.shape[2], mode="linear", align_corners=False)


class AdaptiveMap(nn.Conv2d):
    """1x1 convolution without bias whose weights start at 0; the output is divided by sqrt(input channels)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 1, bias=False)
        self.scale = in_channels**-0.5
        nn.init.zeros_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.scale


class SeaAttention(nn.Module):
    """Squeeze-enhanced axial attention: [B, C, H, W] -> [B, C, H, W] (paper eq. 4 and 5).

    Two branches share q, k and v. Squeeze axial attention attends among the H row means and among the W column means,
    and its result is broadcast over the feature map. Detail enhancement convolves the unsqueezed q, k and v. The
    attention gates the detail. The gate is 0.5 everywhere at initialisation, because `proj` ends in a BatchNorm whose
    scale starts at 0.

    In SeaFormer++ weighted means replace the means ("squeeze"), and the broadcast is multiplied by a gain at every
    position ("expand"). Weights and gains depend on the input. The paper's formulas are not public; these are ours.
    Both are computed by 1x1 convolutions that start at 0, where the block equals that of the ICLR model (see
    `AdaptiveMap`).

    Args:
        channels: Channels C of input and output.
        key_dim: Key channels per head.
        heads: Number of heads.
        detail_input: Input of detail enhancement: "qkv" (official); "conv", a 1x1 convolution of x to C channels;
            "upconv", a 1x1 convolution of x to the channels of qkv; "none" for no detail enhancement, so that the
            ungated attention is the output.
        detail_combine: "multiply" (official), or "add" for attention + detail without the hard sigmoid.
        position_embedding: False leaves out the position embeddings.
        axial: False leaves out the attention, so that the detail is the output.
        adaptive: "none", "both", "squeeze" or "expand".
        adaptive_source: Input of the 1x1 convolutions, "x" or "q".
        adaptive_shared: True if all heads share the same weights and gains.
        adaptive_expansion: Gain as a function of the convolution's output a: "linear" for 1 + a, "sigmoid" for
            2 sigmoid(a).
    """

    def __init__(
        self,
        channels: int,
        key_dim: int,
        heads: int,
        detail_input: str = "qkv",
        detail_combine: str = "multiply",
        position_embedding: bool = True,
        axial: bool = True,
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

        # The attributes are in the official order, so that the state dict lists the names in the official order.
        self.to_q = ConvBN(channels, qk)
        self.to_k = ConvBN(channels, qk)
        self.to_v = ConvBN(channels, value)
        self.proj = None
        if axial:
            self.proj = nn.Sequential(nn.ReLU6(), ConvBN(value, channels, scale_init=0.0))
            self.proj_encode_row = nn.Sequential(nn.ReLU6(), ConvBN(value, value, scale_init=0.0))
            self.pos_emb_rowq = position()
            self.pos_emb_rowk = position()
            self.proj_encode_column = nn.Sequential(nn.ReLU6(), ConvBN(value, value, scale_init=0.0))
            self.pos_emb_columnq = position()
            self.pos_emb_columnk = position()
        # Input and output channels of the adaptive maps: one map per head, or one for all.
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
        if self.proj is None:
            return self.detail(torch.cat([q, k, v], dim=1) if self.detail_input == "qkv" else x)
        attended = self.axial(q, k, v, q if self.adaptive_source == "q" else x)
        if self.detail_input == "none":
            return attended
        detail = self.detail(torch.cat([q, k, v], dim=1) if self.detail_input == "qkv" else x)
        return attended + detail if self.detail_combine == "add" else h_sigmoid(attended) * detail

    def detail(self, x: Tensor) -> Tensor:
        """Applies detail enhancement to q, k and v, concatenated, or to the block's input -> [B, C, H, W]."""
        return self.pwconv(self.act(self.dwconv(self.to_detail(x))))

    def axial(self, q: Tensor, k: Tensor, v: Tensor, source: Tensor | None = None) -> Tensor:
        """Computes squeeze axial attention -> [B, C, H, W].

        Args:
            q, k: [B, heads * key, H, W].
            v: [B, heads * value, H, W].
            source: [B, C_source, H, W], the input of the adaptive maps; unused without them.
        """
        # Attend among the row tokens and among the column tokens, each with its own position embeddings.
        (row_q, row_k, row_v), (column_q, column_k, column_v) = self.squeeze([q, k, v], source)
        rows = self.attend(self.pos_emb_rowq(row_q), self.pos_emb_rowk(row_k), row_v)
        columns = self.attend(self.pos_emb_columnq(column_q), self.pos_emb_columnk(column_k), column_v)
        rows = self.proj_encode_row(rows.unsqueeze(3))  # [B, heads * value, H, 1]
        columns = self.proj_encode_column(columns.unsqueeze(2))  # [B, heads * value, 1, W]
        # The official code adds the unsqueezed v; the paper does not mention it.
        return self.proj(v + self.expand(rows, columns, source))

    def squeeze(self, maps: list[Tensor], source: Tensor | None) -> tuple[list[Tensor], list[Tensor]]:
        """Reduces feature maps [B, C, H, W] to row tokens [B, C, H] and column tokens [B, C, W]."""
        if self.squeeze_map is None:
            return [t.mean(3) for t in maps], [t.mean(2) for t in maps]
        scores = self.squeeze_map(source)  # [B, heads or 1, H, W]
        heads = [t.unflatten(1, (scores.shape[1], -1)) for t in maps]  # [B, heads or 1, C per head, H, W]
        # The weights of one row (or column) add up to 1, like those of a mean.
        by_row, by_column = scores.softmax(3), scores.softmax(2)
        rows = [torch.einsum("bgij,bgcij->bgci", by_row, t).flatten(1, 2) for t in heads]
        columns = [torch.einsum("bgij,bgcij->bgcj", by_column, t).flatten(1, 2) for t in heads]
        return rows, columns

    def expand(self, rows: Tensor, columns: Tensor, source: Tensor | None) -> Tensor:
        """Adds rows [B, C, H, 1] and columns [B, C, 1, W], in SeaFormer++ times a gain -> [B, C, H, W]."""
        if self.expand_map is None:
            return rows + columns
        gain = self.expand_map(source)  # [B, heads or 1, H, W]
        gain = 2 * gain.sigmoid() if self.adaptive_expansion == "sigmoid" else 1 + gain
        gain = gain.repeat_interleave(rows.shape[1] // gain.shape[1], dim=1)
        return gain * rows + gain * columns

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Applies multi-head attention among N tokens.

        Args:
            q, k: [B, heads * key, N].
            v: [B, heads * value, N].

        Returns:
            The attended values, [B, heads * value, N].
        """
        q, k, v = (t.unflatten(1, (self.heads, -1)) for t in (q, k, v))  # [B, heads, key or value, N]
        weights = (q.transpose(2, 3) @ k * self.scale).softmax(dim=3)  # [B, heads, N queries, N keys]
        return (v @ weights.transpose(2, 3)).flatten(1, 2)


class FFN(nn.Module):
    """1x1 convolution, 3x3 depthwise convolution (with bias, without BatchNorm), ReLU6, 1x1 convolution.

    [B, C, H, W] -> [B, C, H, W].
    """

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.fc1 = ConvBN(channels, hidden)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.act = nn.ReLU6()
        self.fc2 = ConvBN(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.dwconv(self.fc1(x))))


class DropPath(nn.Module):
    """Stochastic depth: in training, zeroes a sample with probability `rate` and divides the others by 1 - rate."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        return x * x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(keep) / keep


class Block(nn.Module):
    """SeaFormer layer, [B, C, H, W] -> [B, C, H, W]: attention, if any, and FFN, each residual and without a norm."""

    def __init__(self, attention: nn.Module | None, ffn: FFN, drop_path: float):
        super().__init__()
        self.attn = attention
        self.mlp = ffn
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        if self.attn is not None:
            x = x + self.drop_path(self.attn(x))
        return x + self.drop_path(self.mlp(x))


class AttentionStage(nn.Sequential):
    """SeaFormer layers after a stage; stochastic depth grows linearly from 0 to `drop_path_rate` over them."""

    def __init__(self, variant: Variant, index: int, channels: int, drop_path_rate: float):
        super().__init__()
        hidden = channels * variant.ffn_ratios[index]
        self.transformer_blocks = nn.Sequential(
            *(
                Block(create_attention(variant, index, channels), FFN(channels, hidden), rate)
                for rate in torch.linspace(0, drop_path_rate, variant.depths[index]).tolist()
            )
        )


def create_attention(variant: Variant, index: int, channels: int) -> nn.Module | None:
    """Returns the attention of a layer of the stage that is number `index` of those with attention."""
    kind = variant.attention
    if kind == "none":
        return None
    if kind in ("sea", "sea_plus", "enhancement"):
        return SeaAttention(
            channels,
            variant.key_dims[index],
            variant.heads,
            variant.detail_input,
            variant.detail_combine,
            variant.position_embedding,
            kind != "enhancement",
            "both" if kind == "sea_plus" else variant.adaptive,
            variant.adaptive_source,
            variant.adaptive_shared,
            variant.adaptive_expansion,
        )
    return kind(variant, index, channels)


class Backbone(nn.Module):
    """Five stages of inverted residuals (`smb1` to `smb5`); attention stages (`trans1`, ...) follow the last ones.

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
        """Returns the five stage outputs of images [B, 3, H, W], at 1/4 to 1/64 of their size (rounded up)."""
        features = []
        for i in range(len(self.channels)):
            x = self.get_submodule(f"smb{i + 1}")(x)
            if i >= self.mobile_only:
                x = self.get_submodule(f"trans{i - self.mobile_only + 1}")(x)
            features.append(x)
        return features


class Upsampling(nn.Module):
    """Bilinear interpolation, an inverted residual and, if the channels change, a 1x1 convolution.

    Distilled students have this module. It turns the feature map [B, C_in, h, w] of an image of H x W pixels into
    [B, C_out, ceil(r*H / stride), ceil(r*W / stride)], where r is the ratio and r*H and r*W are rounded. The official
    code has no such module; its parameter names are ours.
    """

    def __init__(self, in_channels: int, out_channels: int, ratio: float, stride: int):
        super().__init__()
        self.block = InvertedResidual(in_channels, in_channels, kernel=5, expansion=4, stride=1)
        nn.init.zeros_(self.block.conv[-1].bn.weight)  # A fresh block adds nothing to the interpolation.
        self.project = nn.Identity() if in_channels == out_channels else ConvBN(in_channels, out_channels)
        self.ratio, self.stride = ratio, stride

    def forward(self, x: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Upsamples the feature map `x` of an image of `image_size` (H, W)."""
        size = [-(-round(side * self.ratio) // self.stride) for side in image_size]
        return self.project(self.block(F.interpolate(x, size=size, mode="bilinear", align_corners=False)))


class SeaFormer(Backbone):
    """Classifier: images [B, 3, H, W] -> logits [B, num_classes].

    Images are RGB, scaled to [0, 1] and then normalised with the ImageNet mean and standard deviation. The head
    averages the last feature map over its positions and applies one linear layer.
    """

    def __init__(self, variant: Variant, num_classes: int = 1000, drop_path_rate: float = 0.1):
        super().__init__(variant, drop_path_rate)
        width = variant.upsample_width or self.channels[-1]
        self.upsample = None
        if variant.upsample_ratio:
            stride = 2 << len(self.channels)  # Stride of the last feature map: 64 with five stages.
            self.upsample = Upsampling(self.channels[-1], width, variant.upsample_ratio, stride)
        self.linear = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        features = self.forward_features(x)[-1]
        if self.upsample is not None:
            features = self.upsample(features, x.shape[2:])
        # Delegates take the mean in this form.
        return self.linear(features.mean(dim=(2, 3), keepdim=True).flatten(1))


def create_model(
    name: str, num_classes: int = 1000, drop_path_rate: float = 0.1, **options: str | bool
) -> SeaFormer:
    """Returns a SeaFormer classifier with random weights, in training mode.

    Args:
        name: A key of `VARIANTS`, such as "seaformer_tiny" or "seaformer_plus_tiny".
        num_classes: Number of classes (1000 in the official code).
        drop_path_rate: Rate of stochastic depth in the last block of each attention stage, in [0, 1).
        **options: Fields of `Variant` to change.

    Raises:
        ValueError: The name or an option is unknown.
    """
    return SeaFormer(find(name)._replace(**options), num_classes, drop_path_rate)


def find(name: str) -> Variant:
    """Returns the `Variant` called `name`.

    Raises:
        ValueError: The name is unknown.
    """
    if name not in VARIANTS:
        raise ValueError(f"unknown model {name!r}; expected one of {', '.join(VARIANTS)}")
    return VARIANTS[name]
