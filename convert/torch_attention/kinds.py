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

# Kind -> function (width, heads, setting) that builds its module.
KINDS: dict[str, Callable[[int, int, Setting], nn.Module]] = {
    "vanilla": VanillaAttention,
    "window": WindowAttention,
    "window_shift": functools.partial(WindowAttention, shift=True),
    "axial_sum": AxialSumAttention,
    "axial_deeplab": AxialDeeplabAttention,
    "acmix_swin": AcmixSwinAttention,
    "acmix_conv": AcmixConvAttention,
    "mixformer": MixingAttention,
}
