"""The four published sizes: the backbones of seaformer-cls/seaformer.py and the fusion blocks of
seaformer-seg/local_configs/seaformer/ (the paper, Table "architecture variants").

SeaFormer++ has the same four, with adaptive squeezing and expanding; the paper's own could not be read.
"""

import dataclasses
from typing import NamedTuple

from seaformer_jax.errors import UserError, suggest

_CHOICES = {
    "detail_input": ("qkv", "conv", "upconv", "none"),
    "detail_combine": ("multiply", "add"),
    "adaptive": ("none", "both", "squeeze", "expand"),
    "adaptive_source": ("x", "q"),
    "adaptive_expansion": ("linear", "sigmoid"),
    "fusion": ("sigmoid_multiply", "multiply", "add", "sigmoid_add"),
}


# Options of the adaptive weights -> the values of `adaptive` under which they mean something.
_ADAPTIVE = {
    "adaptive_source": ("both", "squeeze", "expand"),
    "adaptive_shared": ("both", "squeeze", "expand"),
    "adaptive_expansion": ("both", "expand"),
}


class InvertedResidualSpec(NamedTuple):
    """One inverted residual (MobileNetV2 block)."""

    kernel: int  # of the depthwise convolution
    expansion: int  # hidden channels / input channels
    channels: int  # output
    stride: int


@dataclasses.dataclass(frozen=True)
class SeaFormerConfig:
    """Everything that shapes a SeaFormer: its backbone and, for segmentation, its fusion blocks.

    `stages` are the five groups of inverted residuals whose outputs lie at 1/4, 1/8, 1/16, 1/32 and 1/64 of
    the image. The last `len(depths)` of them are followed by SeaFormer layers of the stage's width.

    The options of the papers' ablations are explained where they act: `fusion` in `segmentation.FusionBlock`, the
    others in `attention.SeaAttention`.

    Raises:
        UserError: an option has an unknown value, an option shapes adaptive weights that the model does not have, or
            the numbers of fusion widths and of depths differ.
    """

    stem: int  # channels of the first convolution
    stages: tuple[tuple[InvertedResidualSpec, ...], ...]
    depths: tuple[int, ...]  # SeaFormer layers behind each of the last stages
    key_dims: tuple[int, ...]  # per head, for each of them
    ffn_ratios: tuple[int, ...]  # hidden channels of the FFN / width, for each of them
    heads: int
    value_ratio: int = 2  # value channels per head / key_dim
    drop_path_rate: float = 0.1  # of the last layer of each stage; rises linearly from 0 within the stage
    bn_groups: int = 1
    dtype: str = "float32"  # compute; parameters and statistics are float32
    detail_input: str = "qkv"  # qkv | conv | upconv | none
    detail_combine: str = "multiply"  # multiply | add
    position_embedding: bool = True
    adaptive: str = "none"  # none | both | squeeze | expand
    adaptive_source: str = "x"  # x | q
    adaptive_shared: bool = False  # over the heads
    adaptive_expansion: str = "linear"  # linear | sigmoid
    fusion_widths: tuple[int, ...] = ()  # of the fusion blocks, one behind each of the last stages
    fusion: str = "sigmoid_multiply"  # sigmoid_multiply | multiply | add | sigmoid_add
    upsample_ratio: float = 0.0  # `upsampling.Upsampling` before the head; 0: none
    upsample_width: int = 0  # its output channels; 0: as many as come in

    def __post_init__(self):
        for option, known in _CHOICES.items():
            if (value := getattr(self, option)) not in known:
                raise UserError(
                    f"model option {option} is {value!r}; expected one of {', '.join(known)}.{suggest(value, known)}"
                )
        for option, users in _ADAPTIVE.items():
            if (value := getattr(self, option)) != getattr(type(self), option) and self.adaptive not in users:
                raise UserError(
                    f"model option {option} is {value!r}, but adaptive is {self.adaptive!r}; expected "
                    f"{' or '.join(users)}, as in the seaformer_plus models"
                )
        if self.fusion_widths and len(self.fusion_widths) != len(self.depths):
            raise UserError(
                f"model option fusion_widths is {self.fusion_widths}; expected {len(self.depths)} widths, one "
                "for each stage with attention"
            )


TINY = SeaFormerConfig(
    stem=16,
    stages=(
        (
            InvertedResidualSpec(3, 1, 16, 1),
            InvertedResidualSpec(3, 4, 16, 2),
            InvertedResidualSpec(3, 3, 16, 1),
        ),
        (InvertedResidualSpec(5, 3, 32, 2), InvertedResidualSpec(5, 3, 32, 1)),
        (InvertedResidualSpec(3, 3, 64, 2), InvertedResidualSpec(3, 3, 64, 1)),
        (InvertedResidualSpec(5, 3, 128, 2),),
        (InvertedResidualSpec(3, 6, 160, 2),),
    ),
    depths=(2, 2),
    key_dims=(16, 24),
    ffn_ratios=(2, 4),
    heads=4,
    fusion_widths=(64, 96),
)

SMALL = SeaFormerConfig(
    stem=16,
    stages=(
        (
            InvertedResidualSpec(3, 1, 16, 1),
            InvertedResidualSpec(3, 4, 24, 2),
            InvertedResidualSpec(3, 3, 24, 1),
        ),
        (InvertedResidualSpec(5, 3, 48, 2), InvertedResidualSpec(5, 3, 48, 1)),
        (InvertedResidualSpec(3, 3, 96, 2), InvertedResidualSpec(3, 3, 96, 1)),
        (InvertedResidualSpec(5, 4, 160, 2),),
        (InvertedResidualSpec(3, 6, 192, 2),),
    ),
    depths=(3, 3),
    key_dims=(16, 24),
    ffn_ratios=(2, 4),
    heads=6,
    fusion_widths=(96, 128),
)

BASE = SeaFormerConfig(
    stem=16,
    stages=(
        (
            InvertedResidualSpec(3, 1, 16, 1),
            InvertedResidualSpec(3, 4, 32, 2),
            InvertedResidualSpec(3, 3, 32, 1),
        ),
        (InvertedResidualSpec(5, 3, 64, 2), InvertedResidualSpec(5, 3, 64, 1)),
        (InvertedResidualSpec(3, 3, 128, 2), InvertedResidualSpec(3, 3, 128, 1)),
        (InvertedResidualSpec(5, 4, 192, 2),),
        (InvertedResidualSpec(3, 6, 256, 2),),
    ),
    depths=(4, 4),
    key_dims=(16, 24),
    ffn_ratios=(2, 4),
    heads=8,
    fusion_widths=(128, 160),
)

LARGE = SeaFormerConfig(
    stem=32,
    stages=(
        (
            InvertedResidualSpec(3, 3, 32, 1),
            InvertedResidualSpec(3, 4, 64, 2),
            InvertedResidualSpec(3, 4, 64, 1),
        ),
        (InvertedResidualSpec(5, 4, 128, 2), InvertedResidualSpec(5, 4, 128, 1)),
        (InvertedResidualSpec(3, 4, 192, 2), InvertedResidualSpec(3, 4, 192, 1)),
        (InvertedResidualSpec(5, 4, 256, 2),),
        (InvertedResidualSpec(3, 6, 320, 2),),
    ),
    depths=(3, 3, 3),
    key_dims=(16, 20, 24),
    ffn_ratios=(2, 4, 6),
    heads=8,
    fusion_widths=(128, 160, 192),
)

_SIZES = {"tiny": TINY, "small": SMALL, "base": BASE, "large": LARGE}
VARIANTS = {f"seaformer_{size}": config for size, config in _SIZES.items()} | {
    f"seaformer_plus_{size}": dataclasses.replace(config, adaptive="both") for size, config in _SIZES.items()
}
