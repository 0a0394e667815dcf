"""The SeaFormer backbone: MobileNetV2 stages, the last ones followed by SeaFormer layers."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seaformer_jax.models.attention.sea import SeaAttention
from seaformer_jax.models.blocks import Conv, ConvBN, Depthwise, InvertedResidual, Pointwise
from seaformer_jax.models.variants import SeaFormerConfig


class FFN(nnx.Module):
    """Feed-forward network with a depthwise convolution (with bias, without BatchNorm) between its layers."""

    def __init__(self, width: int, hidden: int, bn_groups: int, rng: np.random.Generator):
        self.expand = ConvBN(Pointwise(width, hidden, rng), hidden, groups=bn_groups)
        self.depthwise = Depthwise(hidden, 3, rng, use_bias=True)
        self.project = ConvBN(Pointwise(hidden, width, rng), width, groups=bn_groups)

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """x [B, H, W, C] -> [B, H, W, C]."""
        return self.project(jax.nn.relu6(self.depthwise(self.expand(x, train))), train)


class SeaFormerLayer(nnx.Module):
    """SEA attention and FFN, each a residual branch with stochastic depth; no normalisation before them."""

    def __init__(self, attention: SeaAttention, ffn: FFN, drop_path_rate: float):
        self.attention, self.ffn = attention, ffn
        # Of every image in the batch the whole branch is kept and scaled, or dropped.
        self.drop_path = nnx.Dropout(drop_path_rate, broadcast_dims=(1, 2, 3))

    def __call__(self, x: jax.Array, train: bool, rngs: nnx.Rngs | None) -> jax.Array:
        """x [B, H, W, C] -> [B, H, W, C]."""
        keep_all = rngs is None
        x = x + self.drop_path(self.attention(x, train), deterministic=keep_all, rngs=rngs)
        return x + self.drop_path(self.ffn(x, train), deterministic=keep_all, rngs=rngs)


class Stage(nnx.Module):
    """Inverted residuals (`mobile`), then SeaFormer layers (`sea`, empty in the early stages)."""

    def __init__(self, mobile: list[InvertedResidual], sea: list[SeaFormerLayer]):
        self.mobile, self.sea = nnx.List(mobile), nnx.List(sea)

    def __call__(self, x: jax.Array, train: bool, rngs: nnx.Rngs | None) -> jax.Array:
        for block in self.mobile:
            x = block(x, train)
        for layer in self.sea:
            x = layer(x, train, rngs)
        return x

    def last_attention(self, x: jax.Array) -> jax.Array:
        """x as in a call -> [B, h, w, C], the output of the last SEA attention, before it is added to its input."""
        for block in self.mobile:
            x = block(x, train=False)
        *before, last = self.sea
        for layer in before:
            x = layer(x, train=False, rngs=None)
        return last.attention(x, train=False)


class SeaFormer(nnx.Module):
    """Backbone: images to the feature maps of its five stages."""

    def __init__(self, config: SeaFormerConfig, rng: np.random.Generator):
        stem = Conv(3, config.stem, kernel_size=3, stride=2, rng=rng)
        self.stem = ConvBN(stem, config.stem, groups=config.bn_groups)
        self.stages = nnx.List([])
        inputs, first_sea = config.stem, len(config.stages) - len(config.depths)
        for index, specs in enumerate(config.stages):
            mobile = []
            for spec in specs:
                mobile.append(InvertedResidual(inputs, spec, config.bn_groups, rng))
                inputs = spec.channels
            sea = _sea_layers(config, index - first_sea, inputs, rng) if index >= first_sea else []
            self.stages.append(Stage(mobile, sea))
        self.dtype = jnp.dtype(config.dtype)

    def __call__(
        self, images: jax.Array, train: bool = False, rngs: nnx.Rngs | None = None
    ) -> tuple[jax.Array, ...]:
        """Returns the output of every stage.

        Args:
            images: [B, H, W, 3] float, normalised.
            train: normalise by batch statistics and update the running ones.
            rngs: with a `dropout` stream for stochastic depth; None keeps every branch.
        Returns:
            Five maps [B, ceil(H/s), ceil(W/s), C_s] for s = 4, 8, 16, 32, 64 (rounded up at every halving).
        """
        x = self._stem(images, train)
        features = []
        for stage in self.stages:
            x = stage(x, train, rngs)
            features.append(x)
        return tuple(features)

    def last_attention(self, images: jax.Array) -> jax.Array:
        """Returns [B, ceil(H/64), ceil(W/64), C] of images [B, H, W, 3]: what the papers' heat maps show.

        It is the output of the last SEA attention, in evaluation mode, before it is added to its input.
        """
        x = self._stem(images, train=False)
        *before, last = self.stages
        for stage in before:
            x = stage(x, train=False, rngs=None)
        return last.last_attention(x)

    def _stem(self, images: jax.Array, train: bool) -> jax.Array:
        return jax.nn.relu(self.stem(images.astype(self.dtype), train))


def _sea_layers(
    config: SeaFormerConfig, index: int, width: int, rng: np.random.Generator
) -> list[SeaFormerLayer]:
    """The SeaFormer layers of one stage; the drop-path rate restarts at 0 in every stage, as in the code."""
    rates = np.linspace(0, config.drop_path_rate, config.depths[index])
    groups = config.bn_groups

    def attention() -> SeaAttention:
        return SeaAttention(
            width,
            config.key_dims[index],
            config.heads,
            config.value_ratio,
            groups,
            rng,
            detail_input=config.detail_input,
            detail_combine=config.detail_combine,
            position_embedding=config.position_embedding,
            adaptive=config.adaptive,
            adaptive_source=config.adaptive_source,
            adaptive_shared=config.adaptive_shared,
            adaptive_expansion=config.adaptive_expansion,
        )

    def ffn() -> FFN:
        return FFN(width, width * config.ffn_ratios[index], groups, rng)

    return [SeaFormerLayer(attention(), ffn(), float(rate)) for rate in rates]
