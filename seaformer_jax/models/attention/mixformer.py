"""Mixing attention of MixFormer (Chen et al. 2022): window attention beside a depthwise convolution.

The reference is PaddleClas at commit 60239c9d8, ppcls/arch/backbone/model_zoo/mixformer.py.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seaformer_jax.errors import UserError
from seaformer_jax.models.attention.layers import LayerNorm, Linear, Setting, check_heads
from seaformer_jax.models.attention.windows import attend_in_windows, bias_table, pad
from seaformer_jax.models.batch_norm import BatchNorm
from seaformer_jax.models.blocks import Depthwise, Pointwise

_gelu = functools.partial(jax.nn.gelu, approximate=False)


class Gate(nnx.Module):
    """1x1 convolution, BatchNorm, GELU, 1x1 convolution, sigmoid: [B, H, W, inputs] -> [B, H, W, outputs]."""

    def __init__(self, inputs: int, hidden: int, outputs: int, bn_groups: int, rng: np.random.Generator):
        self.reduce = Pointwise(inputs, hidden, rng, use_bias=True)
        self.norm = BatchNorm(hidden, groups=bn_groups)
        self.expand = Pointwise(hidden, outputs, rng, use_bias=True)

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return jax.nn.sigmoid(self.expand(_gelu(self.norm(self.reduce(x), train))))


class MixingAttention(nnx.Module):
    """Window attention on half the channels beside a depthwise 3x3 convolution; each gates the other.

    The convolution scales the channels of the values, the attention scales the positions of the convolution. The
    windows are never shifted. Padding counts in the mean of the channel gate and in the statistics, as in the
    official code.
    """

    def __init__(self, width: int, heads: int, rng: np.random.Generator, setting: Setting):
        half, groups = width // 2, setting.bn_groups
        if width % 16:
            raise UserError(
                f"mixformer has {width} channels; expected a multiple of 16, which its gates divide by"
            )
        check_heads(half, heads)
        # 1. The inputs of both branches.
        self.attention_in, self.attention_in_norm = Linear(width, half, rng, use_bias=True), LayerNorm(half)
        self.conv_in, self.conv_in_norm = Linear(width, width, rng, use_bias=True), LayerNorm(width)
        # 2. The convolution, and the gate of channels that it computes.
        self.depthwise = Depthwise(width, 3, rng, use_bias=True)
        self.depthwise_bn = BatchNorm(width, groups=groups)
        self.channel_gate = Gate(width, width // 8, half, groups, rng)
        self.conv_out, self.conv_out_bn = (
            Pointwise(width, half, rng, use_bias=True),
            BatchNorm(half, groups=groups),
        )
        # 3. The attention, and the gate of positions that it computes.
        self.bias_table = bias_table(setting.window, heads, rng)
        self.qkv = setting.project(half, 3 * half, rng)
        self.spatial_gate = Gate(half, width // 16, 1, groups, rng)
        self.attention_out_norm = LayerNorm(half)
        # 4. Both together.
        self.proj = setting.project_back(width, width, rng)
        self.heads, self.window = heads, setting.window

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps x [B, H, W, C] to the same shape."""
        height, width = x.shape[1:3]
        x = pad(x, self.window)
        convolved = self.conv_in_norm(self.conv_in(x))
        convolved = _gelu(self.depthwise_bn(self.depthwise(convolved), train))
        channel_gate = self.channel_gate(convolved.mean((1, 2), keepdims=True), train)  # [B, 1, 1, C / 2]
        attended = self._attend(self.attention_in_norm(self.attention_in(x)), channel_gate, train)
        spatial_gate = self.spatial_gate(attended, train)  # [B, H, W, 1]
        convolved = self.conv_out_bn(spatial_gate * self.conv_out(convolved), train)
        both = jnp.concatenate([self.attention_out_norm(attended), convolved], axis=-1)
        return self.proj(both, train)[:, :height, :width]

    def _attend(self, x: jax.Array, gate: jax.Array, train: bool) -> jax.Array:
        """Window attention of x [B, H, W, C / 2], whose values are scaled by `gate` [B, 1, 1, C / 2]."""
        q, k, v = jnp.split(self.qkv(x, train), 3, axis=-1)
        qkv = jnp.concatenate([q, k, gate * v], axis=-1)
        return attend_in_windows(qkv, self.bias_table[...], self.heads, self.window, 0)
