"""`SeaFormerConfig`, and the configs of the four published sizes.

The backbones are those of seaformer-cls/seaformer.py, the fusion blocks those of
seaformer-seg/local_configs/seaformer/ (in the paper: Table "architecture variants").

The models of SeaFormer++ have the same four sizes here, with adaptive squeezing and expanding. The sizes in the
SeaFormer++ paper could not be read.
"""

import dataclasses
from typing import NamedTuple

from seaformer_jax.errors import UserError, suggest

# The values that each option accepts.
_CHOICES = {
    "detail_input": ("qkv", "conv", "upconv", "none"),
    "detail_combine": ("multiply", "add"),
    "adaptive": ("none", "both", "squeeze", "expand"),
    "adaptive_source": ("x", "q"),
    "adaptive_expansion": ("linear", "sigmoid"),
    "fusion": ("sigmoid_multiply", "multiply", "add", "sigmoid_add"),
}


# Options of the adaptive weights -> the values of `adaptive` with which they have an effect.
_ADAPTIVE = {
    "adaptive_source": ("both", "squeeze", "expand"),
    "adaptive_shared": ("both", "squeeze", "expand"),
    "adaptive_expansion": ("both", "expand"),
}
_SEA = ("sea", "sea_plus")
_WINDOWS = ("window", "window_shift", "acmix_swin", "mixformer")
# Options that only some kinds of attention read -> these kinds.
_ATTENTION = {
    "detail_input": (*_SEA, "enhancement"),
    "detail_combine": _SEA,
    "position_embedding": _SEA,
    "adaptive": ("sea",),
    "attention_widths": ("vanilla", "window", "window_shift", "axial_sum"),
    "attention_window": _WINDOWS,
    "attention_input": ("axial_deeplab",),
}


class InvertedResidualSpec(NamedTuple):
    """One inverted residual (MobileNetV2 block).

    Attributes:
        kernel: Kernel size of the depthwise convolution.
        expansion: Hidden channels / input channels.
        channels: Output channels.
        stride: Stride of the depthwise convolution.
    """

    kernel: int
    expansion: int
    channels: int
    stride: int


@dataclasses.dataclass(frozen=True)
class SeaFormerConfig:
    """Everything that shapes a model: its backbone, the fusion blocks of segmentation, neck and head of detection.

    The options of the papers' ablations are explained in the classes that read them: `fusion` in
    `heads.segmenter.FusionBlock`, the `detail_*`, `adaptive*` and `position_embedding` options in
    `attention.sea.SeaAttention`.

    Attributes:
        stem: Channels of the first convolution.
        stages: Five groups of inverted residuals. Their outputs are at 1/4, 1/8, 1/16, 1/32 and 1/64 of the image.
        depths: Number of SeaFormer layers in each of the last `len(depths)` stages; they have the stage's width.
        key_dims: Query and key channels per head, for each of these stages.
        ffn_ratios: Hidden channels of the FFN / width of the stage, for each of these stages.
        heads: Attention heads.
        value_ratio: Value channels per head / query and key channels per head.
        drop_path_rate: Drop-path rate of the last layer of each stage; it rises linearly from 0 within the stage.
        bn_groups: BatchNorm groups of the batch, see `batch_norm.BatchNorm`.
        dtype: Dtype of the computation; parameters and statistics are float32.
        attention: Kind of attention of the SeaFormer layers, see `seaformer.create_attention`.
        attention_widths: Channels of queries, keys and values each, for each stage with SeaFormer layers; () takes
            the widths of the stages. SEA has `key_dims` instead.
        attention_window: Side of a window, for kinds with windows. One that divides the map needs no padding.
        attention_input: (height, width) of the images in pixels, which the tables of axial_deeplab fix.
        detail_input: "qkv", "conv", "upconv" or "none".
        detail_combine: "multiply" or "add".
        position_embedding: Whether queries and keys have position embeddings.
        adaptive: "none", "both", "squeeze" or "expand".
        adaptive_source: "x" or "q".
        adaptive_shared: Whether all heads share the adaptive weights.
        adaptive_expansion: "linear" or "sigmoid".
        fusion_widths: Output channels of the fusion blocks, one for each stage with SeaFormer layers.
        fusion: "sigmoid_multiply", "multiply", "add" or "sigmoid_add".
        neck_width: Channels of the feature pyramid and of the towers of the detection head.
        tower_convs: Convolutions in each of the two towers of the detection head.
        anchor_scale: Side of the smallest square anchor of a level / stride of the level, see `detection.anchors`.
        upsample_ratio: Ratio of `upsampling.Upsampling` before the classification; 0 means no such module.
        upsample_width: Output channels of that module; 0 keeps the number of its input channels.
    Raises:
        UserError: An option has an unknown value, it is set although the model has nothing that reads it, or it has
            not one value for each stage with SeaFormer layers.
    """

    stem: int
    stages: tuple[tuple[InvertedResidualSpec, ...], ...]
    depths: tuple[int, ...]
    key_dims: tuple[int, ...]
    ffn_ratios: tuple[int, ...]
    heads: int
    value_ratio: int = 2
    drop_path_rate: float = 0.1
    bn_groups: int = 1
    dtype: str = "float32"
    attention: str = "sea"
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
    fusion_widths: tuple[int, ...] = ()
    fusion: str = "sigmoid_multiply"
    neck_width: int = 256
    tower_convs: int = 4
    anchor_scale: float = 4.0
    upsample_ratio: float = 0.0
    upsample_width: int = 0

    def __post_init__(self):
        for option, known in _CHOICES.items():
            if (value := getattr(self, option)) not in known:
                raise UserError(
                    f"model option {option} is {value!r}; expected one of {', '.join(known)}.{suggest(value, known)}"
                )
        # An option that differs from its default but has no effect is most likely a mistake.
        for option, kinds in _ATTENTION.items():
            if (value := getattr(self, option)) != getattr(
                type(self), option
            ) and self.attention not in kinds:
                raise UserError(
                    f"model option {option} is {value!r}, but attention is {self.attention!r}; expected "
                    f"{' or '.join(kinds)}, because no other kind reads {option}"
                )
        for option, users in _ADAPTIVE.items():
            value, steps = getattr(self, option), self.adaptive_steps
            if value != getattr(type(self), option) and steps not in users:
                raise UserError(
                    f"model option {option} is {value!r}, but adaptive is {steps!r}; expected "
                    f"{' or '.join(users)}, as in the seaformer_plus models"
                )
        self._check_attention()
        for option in ("fusion_widths", "attention_widths"):
            if (widths := getattr(self, option)) and len(widths) != len(self.depths):
                raise UserError(
                    f"model option {option} is {widths}; expected {len(self.depths)} widths, one "
                    "for each stage with attention"
                )

    @property
    def last_width(self) -> int:
        """Channels of the last stage."""
        return self.stages[-1][-1].channels

    @property
    def takes_sizes(self) -> bool:
        """Whether the model takes padded images with their sizes; only SEA attention knows of padding."""
        return self.attention in (*_SEA, "enhancement", "none")

    @property
    def stride(self) -> int:
        """Side of a position of the last stage, in pixels of the image: the stem and every stage halve it."""
        return 2 << len(self.stages)

    @property
    def adaptive_steps(self) -> str:
        """`adaptive`, or "both" for the attention of the seaformer_plus models."""
        return "both" if self.attention == "sea_plus" else self.adaptive

    def _check_attention(self) -> None:
        if self.attention == "enhancement" and self.detail_input == "none":
            raise UserError(
                "model option detail_input is 'none', but attention is 'enhancement', which has nothing else; "
                "expected another detail_input, or attention 'none'"
            )
        if self.attention == "axial_deeplab" and len(self.attention_input) != 2:
            raise UserError(
                f"model option attention_input is {self.attention_input}; expected (height, width) of the images in "
                "pixels, because the tables of axial_deeplab fix it"
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
