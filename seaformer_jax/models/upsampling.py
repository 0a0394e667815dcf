"""The up-sampling module of a model that reads a small image and predicts at the resolution of a larger one.

SeaFormer++ has such a module, made of MobileNetV2 blocks with expansion 4 and kernel 5 (its Figure 5). No code was
published that shows its place in the model or its other parts, so these are ours.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seaformer_jax.errors import UserError
from seaformer_jax.models.blocks import ConvBN, InvertedResidual, Pointwise
from seaformer_jax.models.extents import WHOLE, Extent
from seaformer_jax.models.swin_config import SwinConfig
from seaformer_jax.models.variants import InvertedResidualSpec, SeaFormerConfig

_KERNEL, _EXPANSION = 5, 4  # Figure 5 of the SeaFormer++ paper.


class Upsampling(nnx.Module):
    """Bilinear interpolation, a MobileNetV2 block and, if the widths differ, a 1x1 convolution with BatchNorm.

    The block is a residual whose last BatchNorm scale starts at 0. A fresh module of equal widths therefore only
    interpolates.

    Args:
        inputs, outputs: Numbers of channels.
        ratio: Side of the larger image / side of the image that the model reads; at least 1.
        stride: Side of a cell of the feature map, in pixels of the image.
        bn_groups: BatchNorm groups of the batch.
        rng: Source of the initial values.
    Raises:
        UserError: `ratio` is below 1.
    """

    def __init__(
        self, inputs: int, outputs: int, ratio: float, stride: int, bn_groups: int, rng: np.random.Generator
    ):
        if ratio < 1:
            raise UserError(f"model option upsample_ratio is {ratio}; expected 0 (no module) or at least 1")
        self.block = InvertedResidual(
            inputs, InvertedResidualSpec(_KERNEL, _EXPANSION, inputs, 1), bn_groups, rng
        )
        self.block.project.bn.scale[...] = jnp.zeros(inputs)  # The residual starts at 0.
        project = ConvBN(Pointwise(inputs, outputs, rng), outputs, groups=bn_groups)
        self.project = project if inputs != outputs else None
        self.ratio, self.stride = ratio, stride

    def __call__(
        self, x: jax.Array, image_size: tuple[int, int], train: bool, images: Extent = WHOLE
    ) -> jax.Array:
        """Upsamples a feature map to the size that it would have for the larger image.

        Args:
            x: Feature map [B, h, w, inputs].
            image_size: H and W of the image that `x` was computed from.
            train: Normalise by batch statistics and update the running ones.
            images: Extent of the images.
        Returns:
            [B, ceil(r*H / stride), ceil(r*W / stride), outputs], where r is the ratio; r*H and r*W are rounded to
            whole pixels.
        """
        shape = (len(x), *(self._cells(side) for side in image_size), x.shape[-1])
        upsampled = self.extent(images)
        x = images.strided(self.stride).resize(x, shape, upsampled)
        x = self.block(x, train, upsampled)
        return x if self.project is None else self.project(x, train)

    def extent(self, images: Extent) -> Extent:
        """Returns the extent of the upsampled map for images with the extent `images`."""
        return images.mapped(self._cells)

    def _cells(self, side: int) -> int:
        # The larger image is rounded to whole pixels first, as its own feature map would be computed from them.
        return math.ceil(round(side * self.ratio) / self.stride)


def create(
    config: SeaFormerConfig | SwinConfig, width: int, stride: int, rng: np.random.Generator
) -> tuple[Upsampling | None, int]:
    """Creates the up-sampling module of a model.

    Args:
        config: Config of the model; a `upsample_ratio` of 0 means no module.
        width: Channels of the feature map to upsample.
        stride: Side of a cell of that map, in pixels of the image.
        rng: Source of the initial values.
    Returns:
        The module or None, and the number of channels that the head reads.
    """
    if not config.upsample_ratio:
        return None, width
    outputs = config.upsample_width or width
    return Upsampling(width, outputs, config.upsample_ratio, stride, config.bn_groups, rng), outputs
