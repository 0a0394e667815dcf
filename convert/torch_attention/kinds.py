"""The table of the attention modules that can take the place of SEA attention."""

import functools
from collections.abc import Callable

from torch import nn

from convert.torch_attention.acmix import AcmixConvAttention, AcmixSwinAttention
from convert.torch_attention.axial_deeplab import AxialDeeplabAttention
from convert.torch_attention.axial_sum import AxialSumAttention
from convert.torch_attention.layers import Setting
from convert.torch_attention.mixformer import MixingAttention
from convert.torch_attention.vanilla import VanillaAttention
from convert.torch_attention.window import WindowAttention


def _shifted(width: int, heads: int, setting: Setting) -> WindowAttention:
    return WindowAttention(width, heads, setting._replace(shift=True))


# Kind -> function (width, heads, setting) that builds its module.
KINDS: dict[str, Callable[[int, int, Setting], nn.Module]] = {
    "vanilla": VanillaAttention,
    "window": WindowAttention,
    "window_shift": _shifted,
    "axial_sum": AxialSumAttention,
    "axial_deeplab": AxialDeeplabAttention,
    "acmix_swin": AcmixSwinAttention,
    "acmix_conv": AcmixConvAttention,
    "mixformer": MixingAttention,
}


def chosen(kind: str) -> str | Callable[..., nn.Module]:
    """Returns the value of `attention` with which `torch_model.create_model` builds a SeaFormer of this kind."""
    return functools.partial(_in_seaformer, kind) if kind in KINDS else kind


def _in_seaformer(kind: str, variant: "torch_model.Variant", index: int, channels: int) -> nn.Module:  # noqa: F821
    """Returns the attention of a layer of the stage that is number `index` of those with attention."""
    stride = 4 << len(variant.stages) - len(variant.depths) + index
    setting = Setting(
        inner=variant.attention_widths[index] if variant.attention_widths else 0,
        window=variant.attention_window,
        size=tuple(-(-side // stride) for side in variant.attention_input) or None,
        normalized=True,
    )
    return KINDS[kind](channels, variant.heads, setting)
