"""Image classification on the backbone."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seaformer_jax.models import upsampling
from seaformer_jax.models.blocks import Pointwise
from seaformer_jax.models.seaformer import SeaFormer
from seaformer_jax.models.variants import SeaFormerConfig


class Classifier(nnx.Module):
    """Global average pool of the last stage and one linear layer (no dropout, as the official code)."""

    def __init__(self, config: SeaFormerConfig, num_classes: int, rng: np.random.Generator):
        self.backbone = SeaFormer(config, rng)
        width, stride = config.stages[-1][-1].channels, 2 ** (1 + len(config.stages))
        self.upsample, self.width = upsampling.create(config, width, stride, rng)
        self.head = Pointwise(self.width, num_classes, rng, use_bias=True)

    def __call__(self, images: jax.Array, train: bool = False, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Returns float32 logits [B, num_classes].

        Args:
            images: [B, H, W, 3] float, normalised by the mean and std of `config.data`.
            train: normalise by batch statistics and update the running ones.
            rngs: with a `dropout` stream for stochastic depth; None keeps every branch.
        """
        return self.classify(self.features(images, train, rngs), train, rngs)

    def features(self, images: jax.Array, train: bool = False, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Returns the last stage's map, [B, ceil(H/64), ceil(W/64), width]; upsampled, r*H and r*W for H and W."""
        x = self.backbone(images, train, rngs)[-1]
        return x if self.upsample is None else self.upsample(x, images.shape[1:3], train)

    def classify(self, features: jax.Array, train: bool = False, rngs: nnx.Rngs | None = None) -> jax.Array:
        """features [B, h, w, width] -> float32 logits [B, num_classes]; the head is the same in training."""
        return self.head(features.astype(jnp.float32).mean((1, 2)))
