"""The attention modules that SeaFormer is compared with, by name.

To add a kind: a file here with a module `Kind(width, heads, rng, setting)` that is called as `module(x, train)`, a
row in `_KINDS`, and its golden vector.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
from flax import nnx

from seaformer_jax.errors import UserError, suggest
from seaformer_jax.models.attention.acmix_conv import AcmixConvAttention
from seaformer_jax.models.attention.acmix_swin import AcmixSwinAttention
from seaformer_jax.models.attention.axial_deeplab import AxialDeeplabAttention
from seaformer_jax.models.attention.axial_sum import AxialSumAttention
from seaformer_jax.models.attention.layers import Setting
from seaformer_jax.models.attention.mixformer import MixingAttention
from seaformer_jax.models.attention.sea import SeaAttention
from seaformer_jax.models.attention.vanilla import VanillaAttention
from seaformer_jax.models.attention.window import WindowAttention

_SEA_KEY = 16  # Key channels per head of the bare SEA modules; values have twice as many.


def _sea(
    width: int, heads: int, rng: np.random.Generator, setting: Setting, *, adaptive: str
) -> SeaAttention:
    return SeaAttention(width, _SEA_KEY, heads, 2, setting.bn_groups, rng, adaptive=adaptive)


def _shifted(width: int, heads: int, rng: np.random.Generator, setting: Setting) -> WindowAttention:
    return WindowAttention(width, heads, rng, dataclasses.replace(setting, shift=True))


# Kind -> function (width, heads, rng, setting) that builds its module.
_KINDS: dict[str, Callable[..., nnx.Module]] = {
    "sea": functools.partial(_sea, adaptive="none"),
    "sea_plus": functools.partial(_sea, adaptive="both"),
    "vanilla": VanillaAttention,
    "window": WindowAttention,
    "window_shift": _shifted,
    "axial_sum": AxialSumAttention,
    "axial_deeplab": AxialDeeplabAttention,
    "acmix_swin": AcmixSwinAttention,
    "acmix_conv": AcmixConvAttention,
    "mixformer": MixingAttention,
}
KINDS = tuple(_KINDS)


def create(
    kind: str, width: int, heads: int, seed: int = 0, size: tuple[int, int] | None = None
) -> nnx.Module:
    """Returns an attention module as published, with fresh parameters.

    Args:
        kind: One of `KINDS`.
        width: Channels C of the feature map.
        heads: Number of heads. `axial_deeplab` has twice as many groups, `acmix_conv` twice as many heads.
        seed: Seed of the initial parameters.
        size: (H, W) of the feature map; only `axial_deeplab` reads it, because its tables fix the size.
    Returns:
        A module that maps x [B, H, W, C] to the same shape: `module(x, train=False)`. SEA has keys of 16 and values
        of 32 channels per head; windows are 7x7.
    Raises:
        UserError: The kind is unknown, or it cannot have this width, these heads or this size.
    """
    return build(kind, width, heads, np.random.default_rng(seed), Setting(size=size))


def build(kind: str, width: int, heads: int, rng: np.random.Generator, setting: Setting) -> nnx.Module:
    """As `create`, with a source of initial values and a `Setting`."""
    if kind not in _KINDS:
        raise UserError(f"attention is {kind!r}; expected one of {', '.join(KINDS)}.{suggest(kind, KINDS)}")
    return _KINDS[kind](width, heads, rng, setting)
