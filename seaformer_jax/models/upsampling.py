"""The up-sampling module of a model that sees a small image and answers at a larger one's resolution.

SeaFormer++ has one, of MobileNetV2 blocks with expansion 4 and kernel 5 (its Figure 5); where it stands in the model
and what else it is made of is not published in code: the rest is ours.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seaformer_jax.errors import UserError
from seaformer_jax.models.blocks import ConvBN, InvertedResidual, Pointwise
from seaformer_jax.models.variants import InvertedResidualSpec, SeaFormerConfig
from seaformer_jax.resize import resize_linear

_KERNEL, _EXPANSION = 5, 4  # Figure 5 of the SeaFormer++ paper.


class Upsampling(nnx.Module):
    """Bilinear interpolation, a MobileNetV2 block and, where the widths differ, a 1x1 convolution with BatchNorm.

    The block is a residual whose last BatchNorm scale starts at 0, so that a fresh module interpolates and does
    nothing else.

    Args:
        inputs, outputs: channels.
        ratio: side of the image that the result is for / side of the image that the model sees, at least 1.
        stride: pixels of an image along one side of a cell of its map.
        bn_groups: of the BatchNorms.
        rng: of the initial values.
    """

    def __init__(
        self, inputs: int, outputs: int, ratio: float, stride: int, bn_groups: int, rng: np.random.Generator
    ):
        if ratio < 1:
            raise UserError(f"model option upsample_ratio is {ratio}; expected 0 (no module) or at least 1")
        self.block = InvertedResidual(
            inputs, InvertedResidualSpec(_KERNEL, _EXPANSION, inputs, 1), bn_groups, rng
        )
        self.block.project.bn.scale[...] = jnp.zeros(inputs)
        project = ConvBN(Pointwise(inputs, outputs, rng), outputs, groups=bn_groups)
        self.project = project if inputs != outputs else None
        self.ratio, self.stride = ratio, stride

    def __call__(self, x: jax.Array, image_size: tuple[int, int], train: bool) -> jax.Array:
        """Returns [B, ceil(r*H / stride), ceil(r*W / stride), outputs], r being the ratio.

        Args:
            x: [B, h, w, inputs], the map of an image.
            image_size: H and W of that image; r*H and r*W are rounded to whole pixels.
            train: normalise by batch statistics and update the running ones.
        """
        size = (math.ceil(round(side * self.ratio) / self.stride) for side in image_size)
        x = resize_linear(x, (len(x), *size, x.shape[-1]))
        x = self.block(x, train)
        return x if self.project is None else self.project(x, train)


def create(
    config: SeaFormerConfig, width: int, stride: int, rng: np.random.Generator
) -> tuple[Upsampling | None, int]:
    """Returns the module that `config` wants behind a map of `width` channels, or None, and its output channels."""
    if not config.upsample_ratio:
        return None, width
    outputs = config.upsample_width or width
    return Upsampling(width, outputs, config.upsample_ratio, stride, config.bn_groups, rng), outputs
