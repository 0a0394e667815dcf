"""A yardstick for the traffic of a training step: what the outputs of the convolutions before BatchNorm cost.

BatchNorm needs the statistics of a whole feature map before it can normalise any of it, so each of these arrays has
to be written and read again. Forward it is written once, and read once to be normalised. Backward it is read for the
two sums of BatchNorm's gradient, and again for the gradient of the input; the gradient of the normalised output was
written once, and is read in both of these passes. That makes seven passes. A program can stay below it only with
arrays that never leave the chip's fast memory, or by computing some of them again.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from seaformer_jax.models.blocks import ConvBN

PASSES = 7
_BYTES = 2  # bfloat16


class _Counter(nnx.Module):
    """Takes the place of a BatchNorm and notes the number of values that it would have normalised."""

    def __init__(self, sizes: list[int]):
        self.note = sizes.append

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        self.note(x.size)
        return x


def outputs_before_batch_norm(model: nnx.Module, height: int, width: int) -> int:
    """Returns how many values the convolutions before BatchNorm put out for one image of `height` x `width` pixels.

    The model is traced with abstract arrays, and its BatchNorms are replaced: it cannot be used afterwards.
    """
    sizes: list[int] = []
    for _, module in nnx.iter_graph(model):
        if isinstance(module, ConvBN):
            module.bn = _Counter(sizes)
    jax.eval_shape(
        lambda images: model(images, train=False), jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
    )
    return sum(sizes)


def floor_bytes(model: nnx.Module, height: int, width: int) -> int:
    """Returns the bytes per image of seven bfloat16 passes over those outputs."""
    return PASSES * _BYTES * outputs_before_batch_norm(model, height, width)
