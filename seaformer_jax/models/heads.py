"""Image classification on the backbone."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seaformer_jax.models.layers import Pointwise
from seaformer_jax.models.seaformer import SeaFormer
from seaformer_jax.models.variants import SeaFormerConfig


class Classifier(nnx.Module):
    """Global average pool of the last stage and one linear layer (no dropout, as the official code)."""

    def __init__(self, config: SeaFormerConfig, num_classes: int, rng: np.random.Generator):
        self.backbone = SeaFormer(config, rng)
        self.head = Pointwise(config.stages[-1][-1].channels, num_classes, rng, use_bias=True)

    def __call__(self, images: jax.Array, train: bool = False, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Returns float32 logits [B, num_classes].

        Args:
          images: [B, H, W, 3] float, normalised by the mean and std of `config.data`.
          train: normalise by batch statistics and update the running ones.
          rngs: with a `dropout` stream for stochastic depth; None keeps every branch.
        """
        features = self.backbone(images, train, rngs)[-1]
        return self.head(features.astype(jnp.float32).mean((1, 2)))
