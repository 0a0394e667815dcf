"""Window attention of Swin (Liu et al. 2021): "local" attention, with and without shifted"""

import jax
import numpy as np
from flax import nnx

from seaformer_jax.models.attention.layers import Setting, check_heads
from seaformer_jax.models.attention.windows import attend_in_windows, bias_table, enter, leave


class WindowAttention(nnx.Module):
    """Every position attends to its window, with a learned bias for each relative position.

    Shifted windows are moved by half their side, so that neighbours of other windows meet. A map that is no larger
    than one window along an axis is not shifted, as in Swin.
    """

    def __init__(self, width: int, heads: int, rng: np.random.Generator, setting: Setting):
        inner = setting.inner or width
        check_heads(inner, heads)
        self.bias_table = bias_table(setting.window, heads, rng)
        self.qkv = setting.project(width, 3 * inner, rng)
        self.proj = setting.project_back(inner, width, rng)
        self.heads, self.window, self.shift = heads, setting.window, setting.shift

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps x [B, H, W, C] to the same shape."""
        padded, shift = enter(x, self.window, self.shift)
        qkv = self.qkv(padded, train)
        out = attend_in_windows(qkv, self.bias_table[...], self.heads, self.window, shift)
        return leave(self.proj(out, train), shift, x.shape)
