"""Convolution layers, convolution with batch normalisation, and the inverted residual of MobileNetV2.

The backbone, the attention and the heads are built from these layers. Batch normalisation and depthwise convolution
themselves are in `batch_norm` and `depthwise`.

Arrays are channels-last, [B, H, W, C]. Parameters are float32; a layer computes in the dtype of its input.

Initial values are those of PyTorch's `Conv2d` and `Linear`. The official classification trainer keeps these, because
it never calls its `init_weights`. NumPy draws them: JAX would compile one small XLA program for every shape of
parameter, which takes half a minute.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from seaformer_jax.models import forms
from seaformer_jax.models.batch_norm import BatchNorm
from seaformer_jax.models.convolution import convolution
from seaformer_jax.models.extents import WHOLE, Extent
from seaformer_jax.models.variants import InvertedResidualSpec


class Pointwise(nnx.Module):
    """1x1 convolution or linear layer: [..., inputs] -> [..., outputs] as a matrix product."""

    def __init__(self, inputs: int, outputs: int, rng: np.random.Generator, *, use_bias: bool = False):
        self.kernel = _torch_uniform(rng, (inputs, outputs), fan_in=inputs)
        self.bias = _torch_uniform(rng, (outputs,), fan_in=inputs) if use_bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        y = forms.pointwise(x, self.kernel[...])
        return y if self.bias is None else add_parameter(y, self.bias[...])


class Conv(nnx.Module):
    """k x k convolution: [B, H, W, inputs] -> [B, ceil(H/stride), ceil(W/stride), outputs], k odd.

    The input is padded by k // 2 on every side. It may have padding of its own and come in bands, see `extents`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel_size: int,
        stride: int,
        rng: np.random.Generator,
        *,
        use_bias: bool = False,
    ):
        shape, fan_in = (kernel_size, kernel_size, inputs, outputs), kernel_size**2 * inputs
        self.kernel = _torch_uniform(rng, shape, fan_in)
        self.bias = _torch_uniform(rng, (outputs,), fan_in) if use_bias else None
        self.stride = stride

    def __call__(self, x: jax.Array, extent: Extent = WHOLE) -> jax.Array:
        y = convolution(extent.clear(x), self.kernel[...], self.stride, 1, extent.bands)
        return y if self.bias is None else add_parameter(y, self.bias[...])


class Depthwise(nnx.Module):
    """Depthwise k x k convolution: [B, H, W, C] -> [B, ceil(H/stride), ceil(W/stride), C], k odd.

    The input is padded by k // 2 on every side. It may have padding of its own and come in bands, see `extents`.
    """

    def __init__(
        self,
        features: int,
        kernel_size: int,
        rng: np.random.Generator,
        *,
        stride: int = 1,
        use_bias: bool = False,
    ):
        fan_in = kernel_size**2  # PyTorch counts the inputs of one group: a single channel.
        self.kernel = _torch_uniform(rng, (kernel_size, kernel_size, features), fan_in)
        self.bias = _torch_uniform(rng, (features,), fan_in) if use_bias else None
        self.stride = stride

    def __call__(self, x: jax.Array, extent: Extent = WHOLE) -> jax.Array:
        y = forms.depthwise_conv(extent.clear(x), self.kernel[...], self.stride, extent.bands)
        return y if self.bias is None else add_parameter(y, self.bias[...])


def add_parameter(x: jax.Array, parameter: jax.Array) -> jax.Array:
    """Adds a float32 parameter in float32, so that its gradient is summed in float32; returns the dtype of `x`."""
    return (x.astype(jnp.float32) + parameter).astype(x.dtype)


def _torch_uniform(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> nnx.Param:
    """Draws a parameter uniformly in +-1/sqrt(fan_in): PyTorch's `kaiming_uniform_(a=sqrt(5))` and default bias."""
    bound = fan_in**-0.5
    return nnx.Param(jnp.asarray(rng.uniform(-bound, bound, shape), jnp.float32))


class ConvBN(nnx.Module):
    """A convolution without bias and a BatchNorm (`Conv2d_BN` in the official code).

    Args:
        conv: Convolution with `features` output channels.
        features: Channels to normalise.
        groups: BatchNorm groups of the batch.
        initial_scale: Initial value of the BatchNorm's scale; 0 makes the layer output 0 at the start.
    """

    def __init__(self, conv: nnx.Module, features: int, *, groups: int, initial_scale: float = 1.0):
        self.conv = conv
        self.bn = BatchNorm(features, groups=groups, initial_scale=initial_scale)

    def __call__(self, x: jax.Array, train: bool, *extent: Extent) -> jax.Array:
        """Maps x [B, H, W, inputs] to [B, h, w, features]; a 1x1 convolution takes no extent."""
        return self.bn(self.conv(x, *extent), train)


class InvertedResidual(nnx.Module):
    """MobileNetV2 block: 1x1 expansion, depthwise convolution, linear 1x1 projection, with ReLU between them.

    The expansion is left out if its ratio is 1. The input is added to the output if both have the same shape.
    """

    def __init__(self, inputs: int, spec: InvertedResidualSpec, bn_groups: int, rng: np.random.Generator):
        hidden = inputs * spec.expansion
        # With ratio 1 an expansion would keep the width; MobileNetV2 has none there.
        expand = ConvBN(Pointwise(inputs, hidden, rng), hidden, groups=bn_groups)
        self.expand = expand if spec.expansion != 1 else None
        depthwise = Depthwise(hidden, spec.kernel, rng, stride=spec.stride)
        self.depthwise = ConvBN(depthwise, hidden, groups=bn_groups)
        self.project = ConvBN(Pointwise(hidden, spec.channels, rng), spec.channels, groups=bn_groups)
        self.stride, self.shortcut = spec.stride, spec.stride == 1 and inputs == spec.channels

    def __call__(self, x: jax.Array, train: bool, extent: Extent = WHOLE) -> jax.Array:
        """Maps x [B, H, W, inputs], or bands of it, to [B, ceil(H/stride), ceil(W/stride), channels]."""
        y = x if self.expand is None else jax.nn.relu(self.expand(x, train))
        # No activation after the projection: it is linear, as in MobileNetV2.
        y = self.project(jax.nn.relu(self.depthwise(y, train, extent)), train)
        return x + y if self.shortcut else y
