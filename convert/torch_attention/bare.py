"""Attention modules on their own, by kind, as `seaformer_jax.models.attention.create` makes them."""

from torch import nn

from convert.torch_attention.kinds import KINDS
from convert.torch_attention.layers import Setting
from convert.torch_model import SeaAttention

_SEA_KEY = 16  # Key channels per head.


def create(kind: str, width: int, heads: int, size: tuple[int, int] | None = None) -> nn.Module:
    """Returns the module on feature maps [B, C, H, W] with random weights, in training mode.

    Args:
        kind: One of `seaformer_jax.models.attention.KINDS`.
        width: Channels C.
        heads: As in `seaformer_jax.models.attention.create`.
        size: (H, W), which only `axial_deeplab` reads.
    """
    return build(kind, width, heads, Setting(size=size))


def build(kind: str, width: int, heads: int, setting: Setting) -> nn.Module:
    """As `create`, with a `Setting`."""
    if kind in KINDS:
        return KINDS[kind](width, heads, setting)
    return SeaAttention(width, _SEA_KEY, heads, adaptive="both" if kind == "sea_plus" else "none")
