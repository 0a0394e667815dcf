"""The forms of the convolutions, one for each platform that a program is compiled for.

A form is a way to write the same function. `jax.lax.platform_dependent` chooses it when the program is compiled, so a
program for TPUs that is compiled on a machine without one has the forms of TPUs. What chose them:

- 1x1 convolution: a product of two axes on CPUs, over the last axis elsewhere. On a CPU the gradient of a product of
  four axes transposes its operands (`experiments.train_speed`). On a TPU the batch is in the lanes, so merging it
  with height and width moves the whole activation: half of all bytes of the first blocks (`experiments.tpu_program`).
- Depthwise convolution: a sum of shifted products on CPUs, XLA's grouped convolution elsewhere. On a CPU the grouped
  convolution takes 8 to 31 times as long (`experiments.depthwise_speed`), on a TPU the sum moves 2.8 times the bytes.
- Convolution with several channels in a group, of which ACmix has one: the same two forms. On a CPU the gradients of
  the grouped convolution take 100 times as long (64 channels, a map of 32x32).
- Bands of rows instead of whole images in the first stages: only for few images on TPUs, see `bands`.

Kernels are given in float32 and convolve in the dtype of the activations. Their gradients are float32: XLA sums them
over the devices in the dtype that they have, and bfloat16 would round every partial sum. NVIDIA's k x k kernels are
the exception (see `convolution`).

Other functions that have a form for a platform: the loss of pixels (`losses`), and colours and warps of RandAugment
(`data.on_device`). `docs/accelerators.md` has the bytes of the forms of before.
"""

import functools
from collections.abc import Callable

import jax

from seaformer_jax.models.convolution import convolution, grouped_depthwise_conv, product
from seaformer_jax.models.depthwise import shifted_depthwise_conv
from seaformer_jax.models.grouped import shifted_grouped_conv

Form = Callable[[jax.Array, jax.Array], jax.Array]  # (activations, float32 kernel) -> activations


def pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Computes a 1x1 convolution or a linear layer.

    Args:
        x: [..., inputs].
        kernel: float32 [inputs, outputs].
    Returns:
        [..., outputs] in the dtype of `x`.
    """
    return _by_platform(_flat_product, product, x, kernel)


def _flat_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return product(x.reshape(-1, x.shape[-1]), kernel).reshape(*x.shape[:-1], -1)


@functools.partial(jax.jit, static_argnames=("stride", "bands"))
def depthwise_conv(x: jax.Array, kernel: jax.Array, stride: int, bands: int = 1) -> jax.Array:
    """Computes a depthwise convolution.

    The function is jitted so that `seaformer_jax.models.macs` finds it in a traced program by its name.

    Args:
        x: [B, H, W, C], or `bands` of every image.
        kernel: float32 [k, k, C], k odd.
        stride: Stride along both axes; it divides the rows of a band.
        bands: Bands of an image, see `models.bands`.
    Returns:
        [B, ceil(H/stride), ceil(W/stride), C] in the dtype of `x`.
    """
    if kernel.shape[0] == stride == 1:
        return (x * kernel[0, 0]).astype(x.dtype)
    if bands > 1:  # Only TPUs have bands.
        return grouped_depthwise_conv(x, kernel, stride, bands)
    on_cpu = functools.partial(shifted_depthwise_conv, stride=stride)
    return _by_platform(on_cpu, functools.partial(grouped_depthwise_conv, stride=stride), x, kernel)


@functools.partial(jax.jit, static_argnames="groups")
def grouped_conv(x: jax.Array, kernel: jax.Array, groups: int) -> jax.Array:
    """Computes a convolution with several inputs and outputs in each group, and stride 1.

    `seaformer_jax.models.macs` finds it by its name, too.

    Args:
        x: [B, H, W, inputs].
        kernel: float32 [k, k, inputs / groups, outputs], k odd.
        groups: Number of groups.
    Returns:
        [B, H, W, outputs] in the dtype of `x`.
    """
    on_cpu = functools.partial(shifted_grouped_conv, groups=groups)
    return _by_platform(on_cpu, functools.partial(convolution, stride=1, groups=groups), x, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _by_platform(on_cpu: Form, elsewhere: Form, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Calls the form of the platform that the program is compiled for.

    The gradient chooses by itself. The derivative that JAX would take of the choice keeps for the backward pass what
    either form needs, in its own shapes.
    """
    return jax.lax.platform_dependent(x, kernel, cpu=on_cpu, default=elsewhere)


def _forward(on_cpu, elsewhere, x, kernel):
    return _by_platform(on_cpu, elsewhere, x, kernel), (x, kernel)


def _backward(on_cpu, elsewhere, residuals, g):
    def gradients(form: Form):
        return lambda x, kernel, g: jax.vjp(form, x, kernel)[1](g)

    return jax.lax.platform_dependent(*residuals, g, cpu=gradients(on_cpu), default=gradients(elsewhere))


_by_platform.defvjp(_forward, _backward)
