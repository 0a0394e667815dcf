"""The object detector: backbone, feature pyramid and the head of RetinaNet (Lin et al. 2017, arXiv 1708.02002).

As mmdetection's `retinanet_r50_fpn`, whose `RetinaHead` has no normalisation. The backbone's maps at 1/8 to 1/64 go
into the pyramid. No code of the authors shows this; their table of parameters and operations does: no other choice
gives 10.9 M and 160 G for the smallest model.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seaformer_jax.detection.anchors import PER_CELL, STRIDES
from seaformer_jax.models import extents
from seaformer_jax.models.blocks import Conv
from seaformer_jax.models.extents import WHOLE, Extent
from seaformer_jax.models.heads.fpn import FPN, LEVELS
from seaformer_jax.models.seaformer import SeaFormer
from seaformer_jax.models.variants import SeaFormerConfig

_EIGHTH = 1  # Index of the stage whose feature map is at 1/8 of the image.
_STD = 0.01  # Standard deviation of the head's initial weights (mmdet's `RetinaHead`).
_PRIOR = (
    0.01  # Probability of every class at the start, so that the many negatives do not swamp the first steps.
)


class RetinaHead(nnx.Module):
    """Two towers of convolutions with ReLU, one for classes and one for boxes, shared by all levels of the pyramid.

    Args:
        width: Channels of the pyramid and of the towers.
        convs: Convolutions of each tower.
        num_classes: Number of classes; background is none of them.
        rng: Source of the initial values.
    """

    def __init__(self, width: int, convs: int, num_classes: int, rng: np.random.Generator):
        def conv(outputs: int) -> Conv:
            return _normal(Conv(width, outputs, 3, 1, rng, use_bias=True), rng)

        self.class_tower = nnx.List([conv(width) for _ in range(convs)])
        self.box_tower = nnx.List([conv(width) for _ in range(convs)])
        self.class_output, self.box_output = conv(PER_CELL * num_classes), conv(PER_CELL * 4)
        self.class_output.bias[...] = jnp.full(PER_CELL * num_classes, -math.log((1 - _PRIOR) / _PRIOR))

    def __call__(
        self, pyramid: Sequence[jax.Array], of_levels: Sequence[Extent] = (WHOLE,) * LEVELS
    ) -> tuple[jax.Array, jax.Array]:
        """Maps the levels [B, h_i, w_i, width] to float32 class logits [B, A, num_classes] and deltas [B, A, 4].

        `of_levels` are the extents of the levels.
        """
        levels = list(zip(pyramid, of_levels, strict=True))
        logits = [self._anchors(self.class_tower, self.class_output, *level) for level in levels]
        deltas = [self._anchors(self.box_tower, self.box_output, *level) for level in levels]
        return jnp.concatenate(logits, 1), jnp.concatenate(deltas, 1)

    @staticmethod
    def _anchors(tower: Sequence[Conv], output: Conv, x: jax.Array, extent: Extent) -> jax.Array:
        """Returns the outputs for one level [B, h, w, width], by row, column and anchor: [B, h * w * PER_CELL, K]."""
        for conv in tower:
            x = jax.nn.relu(conv(extent.clear(x)))
        x = output(extent.clear(x)).astype(jnp.float32)
        return x.reshape(len(x), -1, x.shape[-1] // PER_CELL)


class RetinaNet(nnx.Module):
    """Backbone, feature pyramid (`neck`) and head; the anchors are those of `detection.anchors`."""

    def __init__(self, config: SeaFormerConfig, num_classes: int, rng: np.random.Generator):
        self.backbone = SeaFormer(config, rng)
        channels = [specs[-1].channels for specs in config.stages[_EIGHTH:]]
        self.neck = FPN(channels, config.neck_width, rng)
        self.head = RetinaHead(config.neck_width, config.tower_convs, num_classes, rng)
        self.anchor_scale = config.anchor_scale

    def __call__(
        self,
        images: jax.Array,
        train: bool = False,
        rngs: nnx.Rngs | None = None,
        sizes: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Returns raw class logits and box deltas of all anchors.

        Args:
            images: [B, H, W, 3] float, normalised by the mean and standard deviation of `config.data`.
            train: Normalise by batch statistics and update the running ones.
            rngs: Random numbers with a `dropout` stream for stochastic depth; None keeps every branch.
            sizes: Heights and widths of padded images without their padding, int [B, 2]; see `SeaFormer`. The
                outputs of anchors whose cell begins in the padding are meaningless.
        Returns:
            Logits float32 [B, A, num_classes] (a sigmoid gives the scores) and deltas (dx, dy, dw, dh) float32
            [B, A, 4], see `detection.boxes.decode`. The anchors are those of
            `detection.anchors.anchors(H, W, self.anchor_scale)`, in the same order.
        """
        extent = extents.of(images, sizes)
        levels = [extent.strided(stride) for stride in STRIDES]
        return self.head(self.neck(self.backbone(images, train, rngs, sizes)[_EIGHTH:], levels), levels)


def _normal(conv: Conv, rng: np.random.Generator) -> Conv:
    """Returns `conv` with weights from N(0, 0.01^2) and bias 0."""
    conv.kernel[...] = jnp.asarray(_STD * rng.standard_normal(conv.kernel.shape), jnp.float32)
    conv.bias[...] = jnp.zeros(conv.bias.shape)
    return conv
