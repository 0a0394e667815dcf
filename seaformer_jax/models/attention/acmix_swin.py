"""ACmix in windows: the attention of the authors' ACmix-Swin."""

import jax
import numpy as np
from flax import nnx

from seaformer_jax.models.attention.acmix_paths import ConvolutionPath, rate
from seaformer_jax.models.attention.layers import Setting, check_heads
from seaformer_jax.models.attention.windows import attend_in_windows, bias_table, enter, leave


class AcmixSwinAttention(nnx.Module):
    """The weighted sum of window attention and of a convolution of the same queries, keys and values.

    Two quirks of the official code: the two paths order their channels differently and are added as they are; and
    with shifted windows the convolution reads the rolled map.
    """

    def __init__(self, width: int, heads: int, rng: np.random.Generator, setting: Setting):
        check_heads(width, heads)
        self.bias_table = bias_table(setting.window, heads, rng)
        self.qkv = setting.project(width, 3 * width, rng)
        self.proj = setting.project_back(width, width, rng)
        self.path = ConvolutionPath(width, heads, rng, use_bias=True)
        self.rate1, self.rate2 = rate(0.5), rate(0.5 * setting.start)
        self.heads, self.window, self.shift = heads, setting.window, setting.shift

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps x [B, H, W, C] to the same shape."""
        padded, shift = enter(x, self.window, self.shift)
        qkv = self.qkv(padded, train)
        out = attend_in_windows(qkv, self.bias_table[...], self.heads, self.window, shift)
        rates = (r[...].astype(x.dtype) for r in (self.rate1, self.rate2))
        paths = self.proj(out, train), self.path(qkv)
        out = sum(r * path for r, path in zip(rates, paths, strict=True))
        return leave(out, shift, x.shape)
