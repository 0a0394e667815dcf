"""The image classification model: backbone, global average pool and linear layer."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seaformer_jax.models import extents, upsampling
from seaformer_jax.models.blocks import Pointwise
from seaformer_jax.models.extents import WHOLE, Extent
from seaformer_jax.models.seaformer import SeaFormer
from seaformer_jax.models.swin import Swin
from seaformer_jax.models.swin_config import SwinConfig
from seaformer_jax.models.variants import SeaFormerConfig


class Classifier(nnx.Module):
    """Backbone, global average pool of the last stage and one linear layer.

    There is no dropout, as in the official code. An up-sampling module follows the last stage if the config has one.
    """

    def __init__(self, config: SeaFormerConfig | SwinConfig, num_classes: int, rng: np.random.Generator):
        backbone = Swin if isinstance(config, SwinConfig) else SeaFormer
        self.backbone, self.stride = backbone(config, rng), config.stride
        self.upsample, self.width = upsampling.create(config, config.last_width, config.stride, rng)
        self.head = Pointwise(self.width, num_classes, rng, use_bias=True)

    def __call__(
        self,
        images: jax.Array,
        train: bool = False,
        rngs: nnx.Rngs | None = None,
        sizes: jax.Array | None = None,
    ) -> jax.Array:
        """Returns float32 logits [B, num_classes].

        Args:
            images: [B, H, W, 3] float, normalised by the mean and standard deviation of `config.data`.
            train: Normalise by batch statistics and update the running ones.
            rngs: Random numbers with a `dropout` stream for stochastic depth; None keeps every branch.
            sizes: Heights and widths of padded images without their padding, int [B, 2]; see `SeaFormer`.
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
        """Returns the feature map of the last stage, [B, ceil(H/s), ceil(W/s), width]; s is 64, or 32 for Swin.

        With an up-sampling module of ratio r, the size is that for an image of r*H x r*W pixels. The arguments are
        those of a call.
        """
        x = self.backbone(images, train, rngs, sizes)[-1]
        if self.upsample is None:
            return x
        return self.upsample(x, images.shape[1:3], train, extents.of(images, sizes))

    def classify(
        self,
        features: jax.Array,
        train: bool = False,
        rngs: nnx.Rngs | None = None,
        extent: Extent = WHOLE,
    ) -> jax.Array:
        """Maps features [B, h, w, width] with their extent to float32 logits [B, num_classes].

        `train` and `rngs` have no effect here: they give all models the same signature.
        """
        return self.head(extent.mean(features.astype(jnp.float32)))

    def extent(self, images: jax.Array, sizes: jax.Array | None) -> Extent:
        """Returns the extent of the features, and of logits per position, for the images of a call."""
        extent = extents.of(images, sizes)
        return extent.strided(self.stride) if self.upsample is None else self.upsample.extent(extent)
