"""The SeaFormer backbone: stages of MobileNetV2 blocks; the last stages end with SeaFormer layers."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seaformer_jax.errors import UserError, suggest
from seaformer_jax.models import attention as kinds
from seaformer_jax.models import bands, extents
from seaformer_jax.models.attention.layers import Setting
from seaformer_jax.models.attention.sea import SeaAttention
from seaformer_jax.models.blocks import Conv, ConvBN, Depthwise, InvertedResidual, Pointwise
from seaformer_jax.models.extents import WHOLE, Extent
from seaformer_jax.models.variants import SeaFormerConfig

_BANDED_STAGES = 2  # Up to the feature map of stride `bands.STRIDE`.
_SEA = ("sea", "sea_plus", "enhancement")  # The kinds that are `SeaAttention`.


class FFN(nnx.Module):
    """Feed-forward network: 1x1 expansion, 3x3 depthwise convolution, ReLU6, 1x1 projection.

    The depthwise convolution has a bias and no BatchNorm; the other two have a BatchNorm and no bias.
    """

    def __init__(self, width: int, hidden: int, bn_groups: int, rng: np.random.Generator):
        self.expand = ConvBN(Pointwise(width, hidden, rng), hidden, groups=bn_groups)
        self.depthwise = Depthwise(hidden, 3, rng, use_bias=True)
        self.project = ConvBN(Pointwise(hidden, width, rng), width, groups=bn_groups)

    def __call__(self, x: jax.Array, train: bool, extent: Extent = WHOLE) -> jax.Array:
        """Maps x [B, H, W, C] to the same shape."""
        return self.project(jax.nn.relu6(self.depthwise(self.expand(x, train), extent)), train)


class SeaFormerLayer(nnx.Module):
    """Attention and FFN, each a residual branch with stochastic depth; their inputs are not normalised.

    `attention` is SEA attention in the published models; None leaves the FFN alone.
    """

    def __init__(self, attention: nnx.Module | None, ffn: FFN, drop_path_rate: float):
        self.attention, self.ffn = attention, ffn
        # For each image of the batch, the whole branch is either dropped or kept and scaled up.
        self.drop_path = nnx.Dropout(drop_path_rate, broadcast_dims=(1, 2, 3))

    def __call__(self, x: jax.Array, train: bool, rngs: nnx.Rngs | None, extent: Extent = WHOLE) -> jax.Array:
        """Maps x [B, H, W, C] to the same shape; with `rngs` None, both branches of every image are kept."""
        keep_all = rngs is None
        if self.attention is not None:
            attended = self.attend(x, train, extent)
            x = x + self.drop_path(attended, deterministic=keep_all, rngs=rngs)
        return x + self.drop_path(self.ffn(x, train, extent), deterministic=keep_all, rngs=rngs)

    def attend(self, x: jax.Array, train: bool, extent: Extent) -> jax.Array:
        """Returns the attention of x [B, H, W, C] alone, of the same shape."""
        if isinstance(self.attention, SeaAttention):
            return self.attention(x, train, extent)
        return self.attention(x, train)  # `SeaFormer` refuses padded images for the other kinds.


class Stage(nnx.Module):
    """Inverted residuals (`mobile`), then SeaFormer layers (`sea`; the early stages have none)."""

    def __init__(self, mobile: list[InvertedResidual], sea: list[SeaFormerLayer]):
        self.mobile, self.sea = nnx.List(mobile), nnx.List(sea)

    def __call__(
        self, x: jax.Array, train: bool, rngs: nnx.Rngs | None, extent: Extent
    ) -> tuple[jax.Array, Extent]:
        """Returns the stage's feature map and its extent, for an input with the extent `extent`."""
        x, extent = self._before_attention(x, train, extent)
        for layer in self.sea:
            x = layer(x, train, rngs, extent)
        return x, extent

    def last_attention(self, x: jax.Array, extent: Extent) -> jax.Array:
        """Returns the output of the last attention, [B, h, w, C], before it is added to its input.

        Args:
            x: Input of the stage, as in a call. The model runs in evaluation mode.
            extent: Extent of the input.
        Raises:
            UserError: The layers have no attention.
        """
        x, extent = self._before_attention(x, False, extent)
        *before, last = self.sea
        for layer in before:
            x = layer(x, False, None, extent)
        if last.attention is None:
            raise UserError(
                "model.attention is 'none', so there is no attention to show; leave the heat map out"
            )
        return extent.clear(last.attend(x, False, extent))

    def _before_attention(self, x: jax.Array, train: bool, extent: Extent) -> tuple[jax.Array, Extent]:
        for block in self.mobile:
            x, extent = block(x, train, extent), extent.strided(block.stride)
        return x, extent


class SeaFormer(nnx.Module):
    """The backbone: maps images to the feature maps of five stages.

    Attributes:
        stride: Stride of the last feature map.
        takes_sizes: Whether it takes padded images with their `sizes`; only SEA attention knows of padding.
    """

    def __init__(self, config: SeaFormerConfig, rng: np.random.Generator):
        stem = Conv(3, config.stem, kernel_size=3, stride=2, rng=rng)
        self.stem = ConvBN(stem, config.stem, groups=config.bn_groups)
        self.stages = nnx.List([])
        # SeaFormer layers follow only the last `len(depths)` stages.
        inputs, first_sea = config.stem, len(config.stages) - len(config.depths)
        for index, specs in enumerate(config.stages):
            mobile = []
            for spec in specs:
                mobile.append(InvertedResidual(inputs, spec, config.bn_groups, rng))
                inputs = spec.channels
            sea = _sea_layers(config, index - first_sea, inputs, rng) if index >= first_sea else []
            self.stages.append(Stage(mobile, sea))
        # The dtype of the images decides: every layer computes in the dtype of its input.
        self.dtype = jnp.dtype(config.dtype)
        self.stride, self.takes_sizes = config.stride, config.takes_sizes

    def __call__(
        self,
        images: jax.Array,
        train: bool = False,
        rngs: nnx.Rngs | None = None,
        sizes: jax.Array | None = None,
    ) -> tuple[jax.Array, ...]:
        """Returns the output of every stage.

        Args:
            images: [B, H, W, 3] float, normalised.
            train: Normalise by batch statistics and update the running ones.
            rngs: Random numbers with a `dropout` stream for stochastic depth; None keeps every branch.
            sizes: Heights and widths of the images without the padding below them and on their right, int [B, 2].
                Every image then gives what it would give alone; the values of the padding have no effect. None:
                there is no padding.
        Returns:
            Five feature maps [B, ceil(H/s), ceil(W/s), C_s] for s = 4, 8, 16, 32, 64 (rounded up at every halving).
            With `sizes`, they are 0 beyond the positions of each image.
        Raises:
            ValueError: `sizes` in training mode: the statistics of BatchNorm would count the padding.
            UserError: `sizes` for another attention than SEA.
        """
        if sizes is not None:
            self._check_sizes(train)
        count = bands.count(images)
        x, extent = self._stem(bands.split(images, count), train, extents.of(images, sizes, count))
        features = []
        for stage in self.stages[:_BANDED_STAGES]:
            x, extent = stage(x, train, rngs, extent)
            features.append(bands.join(extent.clear(x), count))
        x, extent = features[-1], extent.joined()
        for stage in self.stages[_BANDED_STAGES:]:
            x, extent = stage(x, train, rngs, extent)
            features.append(extent.clear(x))
        return tuple(features)

    def last_attention(self, images: jax.Array, sizes: jax.Array | None = None) -> jax.Array:
        """Returns the feature map that the papers' heat maps show, in evaluation mode.

        It is the output of the last attention, before it is added to its input.

        Args:
            images: [B, H, W, 3] float, normalised.
            sizes: As in a call.
        Returns:
            [B, ceil(H/64), ceil(W/64), C].
        """
        x, extent = self._stem(images, False, extents.of(images, sizes))
        *before, last = self.stages
        for stage in before:
            x, extent = stage(x, False, None, extent)
        return last.last_attention(x, extent)

    def _check_sizes(self, train: bool) -> None:
        if train:
            raise ValueError("sizes are for evaluation mode; BatchNorm's statistics would count the padding")
        if not self.takes_sizes:
            raise extents.not_taken()

    def _stem(self, images: jax.Array, train: bool, extent: Extent) -> tuple[jax.Array, Extent]:
        x = jax.nn.relu(self.stem(images.astype(self.dtype), train, extent))
        return x, extent.strided(self.stem.conv.stride)


def _sea_layers(
    config: SeaFormerConfig, index: int, width: int, rng: np.random.Generator
) -> list[SeaFormerLayer]:
    """Creates the SeaFormer layers of one stage.

    The drop-path rate restarts at 0 in every stage, as in the official code.

    Args:
        config: Config of the model.
        index: Position of the stage among those that have SeaFormer layers.
        width: Channels of the stage.
        rng: Source of the initial values.
    """
    rates = np.linspace(0, config.drop_path_rate, config.depths[index])
    groups = config.bn_groups

    def ffn() -> FFN:
        return FFN(width, width * config.ffn_ratios[index], groups, rng)

    return [SeaFormerLayer(create_attention(config, index, width, rng), ffn(), float(rate)) for rate in rates]


def create_attention(
    config: SeaFormerConfig, index: int, width: int, rng: np.random.Generator
) -> nnx.Module | None:
    """Creates the attention of one SeaFormer layer.

    The kinds are "sea", the published one; "enhancement", its detail enhancement alone; "none"; and all others of
    `attention.KINDS`. These have a BatchNorm after each projection, because the layer has no norm, and start at 0.
    SEA attention starts at half of its detail, as published.

    The arguments are those of `_sea_layers`.

    Raises:
        UserError: The kind is unknown, or it cannot have this width or size.
    """
    kind, known = config.attention, (*kinds.KINDS, "enhancement", "none")
    if kind not in known:
        raise UserError(
            f"model option attention is {kind!r}; expected one of {', '.join(known)}.{suggest(kind, known)}"
        )
    if kind == "none":
        return None
    if kind not in _SEA:
        # The stages are at 1/4, 1/8, ...; sizes are rounded up.
        stride = 4 << len(config.stages) - len(config.depths) + index
        setting = Setting(
            inner=config.attention_widths[index] if config.attention_widths else 0,
            window=config.attention_window,
            size=tuple(-(-side // stride) for side in config.attention_input) or None,
            bn_groups=config.bn_groups,
            normalized=True,
        )
        return kinds.build(kind, width, config.heads, rng, setting)
    return SeaAttention(
        width,
        config.key_dims[index],
        config.heads,
        config.value_ratio,
        config.bn_groups,
        rng,
        detail_input=config.detail_input,
        detail_combine=config.detail_combine,
        position_embedding=config.position_embedding,
        axial=kind != "enhancement",
        adaptive=config.adaptive_steps,
        adaptive_source=config.adaptive_source,
        adaptive_shared=config.adaptive_shared,
        adaptive_expansion=config.adaptive_expansion,
    )
