"""The feature pyramid of the detector: the four coarser maps of the backbone become five maps of equal width."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seaformer_jax.models.blocks import Conv, Pointwise
from seaformer_jax.models.extents import WHOLE, Extent

LEVELS = 5


class FPN(nnx.Module):
    """Feature pyramid network (Lin et al. 2017, arXiv 1612.03144) with one extra level.

    As mmdetection's `FPN` with `add_extra_convs="on_input"`: the extra level is a convolution of the backbone's last
    map. There is no normalisation and no activation.

    Args:
        inputs: Channels of the backbone's maps, finest first.
        width: Channels of the outputs.
        rng: Source of the initial values.
    """

    def __init__(self, inputs: Sequence[int], width: int, rng: np.random.Generator):
        self.lateral = nnx.List(
            [_xavier(Pointwise(channels, width, rng, use_bias=True), rng) for channels in inputs]
        )
        output = [Conv(width, width, 3, 1, rng, use_bias=True) for _ in inputs]
        output.append(Conv(inputs[-1], width, 3, 2, rng, use_bias=True))
        self.output = nnx.List([_xavier(conv, rng) for conv in output])

    def __call__(
        self, features: Sequence[jax.Array], extents: Sequence[Extent] = (WHOLE,) * LEVELS
    ) -> tuple[jax.Array, ...]:
        """Maps features [B, h_i, w_i, C_i], each half as large as the one before, to five maps [B, h_i, w_i, width].

        The sizes of the first four stay; the fifth is half of the fourth. Halves are rounded up. `extents` are those
        of the five maps.
        """
        merged = [lateral(feature) for lateral, feature in zip(self.lateral, features, strict=True)]
        for level in range(len(merged) - 1, 0, -1):  # Coarse to fine.
            finer = merged[level - 1]
            merged[level - 1] = finer + _double(merged[level], finer.shape[1:3])
        inputs = zip([*merged, features[-1]], [*extents[:-1], extents[-2]], strict=True)
        return tuple(conv(extent.clear(x)) for conv, (x, extent) in zip(self.output, inputs, strict=True))


def _double(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Repeats every position of x [B, h, w, C] twice along both axes and cuts the result to `size`.

    For sizes of 2h - 1 and 2h this is PyTorch's nearest interpolation, which takes the position floor(i * h / size).
    """
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)[:, : size[0], : size[1]]


def _xavier(conv: nnx.Module, rng: np.random.Generator) -> nnx.Module:
    """Returns `conv` with weights uniform in +-sqrt(6 / (fan in + fan out)) and bias 0 (mmcv's `xavier_init`)."""
    *window, inputs, outputs = conv.kernel.shape
    bound = (6 / (np.prod(window) * (inputs + outputs))) ** 0.5
    conv.kernel[...] = jnp.asarray(rng.uniform(-bound, bound, conv.kernel.shape), jnp.float32)
    conv.bias[...] = jnp.zeros(outputs)
    return conv
