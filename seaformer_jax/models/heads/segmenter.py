"""The semantic segmentation model: backbone, fusion blocks and light head.

Official code: seaformer-seg/mmseg/models/decode_heads/light_head.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seaformer_jax.models import extents, upsampling
from seaformer_jax.models.blocks import ConvBN, Depthwise, Pointwise
from seaformer_jax.models.extents import WHOLE, Extent
from seaformer_jax.models.seaformer import SeaFormer
from seaformer_jax.models.variants import SeaFormerConfig

DROPOUT = 0.1  # Share of the channels dropped as a whole (seaformer-seg/local_configs/seaformer/*.py: dropout_ratio).
_CLASSIFIER_STD = 0.01  # Standard deviation of the last layer's initial weights (mmseg's BaseDecodeHead).
_EIGHTH = 1  # Index of the stage whose feature map, at 1/8 of the image, the head starts from.
_STRIDE = 8  # Side of a cell of that map, in pixels of the image.


class FusionBlock(nnx.Module):
    """Fuses a coarse feature map of the context branch into the finer one of the spatial branch.

    Both maps first pass a 1x1 convolution with BatchNorm. `method` says how they are combined; its values are those
    of the paper's ablation of fusion methods. The sigmoid is the hard sigmoid, applied before the upsampling:

    - "sigmoid_multiply": local * upsampled(sigmoid(context)), the published model;
    - "multiply": local * upsampled(context);
    - "add": local + upsampled(context);
    - "sigmoid_add": local + upsampled(sigmoid(context)).
    """

    def __init__(
        self,
        local: int,
        context: int,
        width: int,
        *,
        method: str,
        bn_groups: int,
        rng: np.random.Generator,
    ):
        def pointwise(inputs: int) -> ConvBN:
            return ConvBN(_kaiming(Pointwise(inputs, width, rng), width, rng), width, groups=bn_groups)

        self.local, self.context = pointwise(local), pointwise(context)
        self.sigmoid, self.multiply = "sigmoid" in method, "multiply" in method

    def __call__(
        self,
        local: jax.Array,
        context: jax.Array,
        train: bool,
        extent: Extent = WHOLE,
        context_extent: Extent = WHOLE,
    ) -> jax.Array:
        """Maps local [B, H, W, C] and context [B, h, w, D] with their extents to [B, H, W, width]."""
        local, context = self.local(local, train), self.context(context, train)
        context = jax.nn.hard_sigmoid(context) if self.sigmoid else context
        context = context_extent.resize(context, local.shape, extent)
        return local * context if self.multiply else local + context


class LightHead(nnx.Module):
    """Fuses the feature maps of all attention stages into the one at 1/8, finest first, and classifies each position.

    The initial values are those of mmcv's `ConvModule` and mmseg's `BaseDecodeHead`.

    Args:
        config: Config of the whole model.
        width: Channels of the map to classify: the fused map, or the output of the up-sampling module.
        num_classes: Number of classes of the logits.
        rng: Source of the initial values.
    """

    def __init__(self, config: SeaFormerConfig, width: int, num_classes: int, rng: np.random.Generator):
        groups = config.bn_groups
        # Each fusion block reads the output of the previous one, the first block the map at 1/8. The last width has
        # no block after it, hence `strict=False`.
        contexts = [specs[-1].channels for specs in config.stages[-len(config.depths) :]]
        locals_ = [config.stages[_EIGHTH][-1].channels, *config.fusion_widths]
        self.fuse = nnx.List(
            [
                FusionBlock(*channels, method=config.fusion, bn_groups=groups, rng=rng)
                for channels in zip(locals_, contexts, config.fusion_widths, strict=False)
            ]
        )
        # A 1x1 convolution with one group per channel: a scale for each channel.
        self.linear_fuse = ConvBN(_kaiming(Depthwise(width, 1, rng), width, rng), width, groups=groups)
        self.dropout = nnx.Dropout(DROPOUT, broadcast_dims=(1, 2))
        self.classify = Pointwise(width, num_classes, rng, use_bias=True)
        self.classify.kernel[...] = _normal(rng, self.classify.kernel.shape, _CLASSIFIER_STD)
        self.classify.bias[...] = jnp.zeros(num_classes)

    def fused(self, features: tuple[jax.Array, ...], train: bool, images: Extent = WHOLE) -> jax.Array:
        """Returns the map of the last fusion block, [B, ceil(H/8), ceil(W/8), C].

        Args:
            features: Outputs of the backbone's stages, [B, ceil(H/s), ceil(W/s), C_s] for s = 4, 8, 16, 32, 64.
            train: Normalise by batch statistics and update the running ones.
            images: Extent of the images.
        """
        x, eighth = features[_EIGHTH], images.strided(_STRIDE)
        first = len(features) - len(self.fuse)
        for index, (fuse, context) in enumerate(zip(self.fuse, features[first:], strict=True), first):
            x = fuse(x, context, train, eighth, images.strided(2 ** (index + 2)))
        return x

    def logits(self, x: jax.Array, train: bool, rngs: nnx.Rngs | None, extent: Extent = WHOLE) -> jax.Array:
        """Returns float32 logits [B, h, w, num_classes]; they are 0 on padding.

        Args:
            x: The fused map, upsampled if the model has an up-sampling module, [B, h, w, width].
            train: Normalise by batch statistics and update the running ones.
            rngs: Random numbers with a `dropout` stream; None keeps every channel.
            extent: Extent of `x`.
        """
        x = jax.nn.relu(self.linear_fuse(x, train))
        x = self.dropout(x, deterministic=rngs is None, rngs=rngs)
        return extent.clear(self.classify(x.astype(jnp.float32)))


class Segmenter(nnx.Module):
    """Backbone and light head, with an up-sampling module after the fusion if the config has one."""

    def __init__(self, config: SeaFormerConfig, num_classes: int, rng: np.random.Generator):
        self.backbone = SeaFormer(config, rng)
        self.upsample, self.width = upsampling.create(config, config.fusion_widths[-1], _STRIDE, rng)
        self.head = LightHead(config, self.width, num_classes, rng)

    def __call__(
        self,
        images: jax.Array,
        train: bool = False,
        rngs: nnx.Rngs | None = None,
        sizes: jax.Array | None = None,
    ) -> jax.Array:
        """Returns float32 logits [B, ceil(H/8), ceil(W/8), num_classes].

        With an up-sampling module of ratio r, the size is that for an image of r*H x r*W pixels.

        Args:
            images: [B, H, W, 3] float, normalised by the mean and standard deviation of `config.data`.
            train: Normalise by batch statistics and update the running ones.
            rngs: Random numbers with a `dropout` stream for stochastic depth and the head's dropout; None drops
                nothing.
            sizes: Heights and widths of padded images without their padding, int [B, 2]; see `SeaFormer`. The
                logits are 0 beyond those of each image.
        """
        features = self.features(images, train, rngs, sizes)
        return self.classify(features, train, rngs, self.extent(images, sizes))

    def features(
        self,
        images: jax.Array,
        train: bool = False,
        rngs: nnx.Rngs | None = None,
        sizes: jax.Array | None = None,
    ) -> jax.Array:
        """Returns the fused map, upsampled if the config says so: the shape of the logits with `width` channels."""
        extent = extents.of(images, sizes)
        x = self.head.fused(self.backbone(images, train, rngs, sizes), train, extent)
        return x if self.upsample is None else self.upsample(x, images.shape[1:3], train, extent)

    def classify(
        self,
        features: jax.Array,
        train: bool = False,
        rngs: nnx.Rngs | None = None,
        extent: Extent = WHOLE,
    ) -> jax.Array:
        """Maps features [B, h, w, width] with their extent to float32 logits [B, h, w, num_classes]."""
        return self.head.logits(features, train, rngs, extent)

    def extent(self, images: jax.Array, sizes: jax.Array | None) -> Extent:
        """Returns the extent of the features, and of logits per position, for the images of a call."""
        extent = extents.of(images, sizes)
        return extent.strided(_STRIDE) if self.upsample is None else self.upsample.extent(extent)


def _kaiming(conv: nnx.Module, outputs: int, rng: np.random.Generator) -> nnx.Module:
    """Returns `conv` with weights from N(0, 2 / outputs): mmcv's `kaiming_init` for a 1x1 convolution, by fan-out."""
    conv.kernel[...] = _normal(rng, conv.kernel.shape, (2 / outputs) ** 0.5)
    return conv


def _normal(rng: np.random.Generator, shape: tuple[int, ...], std: float) -> jax.Array:
    return jnp.asarray(std * rng.standard_normal(shape), jnp.float32)
