"""Products and convolutions whose weight gradients are float32, in whatever dtype they compute.

A weight gradient is a sum over all positions of all images, and XLA adds up the devices' parts in the dtype of the
gradient. JAX would give it the dtype of the activations: bfloat16 then rounds the part of every device. PyTorch's
DistributedDataParallel sums float32 as well. It costs nothing, because matrix units accumulate in float32 anyway. The
exception are k x k convolutions on NVIDIA GPUs, see `_kernel_gradient`.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from seaformer_jax.models.bands import with_neighbours


@jax.custom_vjp
def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Multiplies the last axis of `x` by a matrix.

    Args:
        x: [..., inputs].
        kernel: float32 [inputs, outputs]; it is rounded to the dtype of `x`.
    Returns:
        [..., outputs] in the dtype of `x`.
    """
    return lax.dot_general(x, kernel.astype(x.dtype), (((x.ndim - 1,), (0,)), ((), ())))


def _product_forward(x, kernel):
    return product(x, kernel), (x, kernel)


def _product_backward(residuals, g):
    x, kernel = residuals
    rows = tuple(range(x.ndim - 1))
    x_grad = lax.dot_general(g, kernel.astype(g.dtype), (((g.ndim - 1,), (1,)), ((), ())))
    kernel_grad = lax.dot_general(x, g, ((rows, rows), ((), ())), preferred_element_type=jnp.float32)
    return x_grad, kernel_grad


product.defvjp(_product_forward, _product_backward)


Padding = tuple[tuple[int, int], tuple[int, int]]  # Zeros (above, below), (left, right).


def convolution(x: jax.Array, kernel: jax.Array, stride: int, groups: int, bands: int = 1) -> jax.Array:
    """Convolves with XLA's convolution; the image is padded by k // 2 on every side, as in PyTorch.

    JAX's "SAME" padding differs: with stride 2 it pads even sizes on one side only.

    Args:
        x: [B, H, W, inputs], or `bands` of every image.
        kernel: float32 [k, k, inputs / groups, outputs], k odd; it is rounded to the dtype of `x`.
        stride: Stride along both axes; it divides the rows of a band.
        groups: 1, or the number of inputs and outputs for a depthwise convolution.
        bands: Bands of an image, see `models.bands`.
    Returns:
        [B, ceil(H/stride), ceil(W/stride), outputs] in the dtype of `x`.
    """
    k, pad = len(kernel), len(kernel) // 2
    if bands == 1:
        return _convolution(x, kernel, stride, groups, ((pad, pad), (pad, pad)))
    # The last window of a band ends where the first one of the next band would begin, k - stride rows earlier.
    x = with_neighbours(x, bands, above=pad, below=k - pad - stride)
    return _convolution(x, kernel, stride, groups, ((0, 0), (pad, pad)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _convolution(x: jax.Array, kernel: jax.Array, stride: int, groups: int, padding: Padding) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
        window_strides=(stride, stride),
        padding=padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _convolution_forward(x, kernel, stride, groups, padding):
    return _convolution(x, kernel, stride, groups, padding), (x, kernel)


def _convolution_backward(stride, groups, padding, residuals, g):
    x, kernel = residuals
    x_grad = jax.linear_transpose(lambda x: _convolution.fun(x, kernel, stride, groups, padding), x)(g)[0]
    return x_grad, _kernel_gradient(x, g, len(kernel), stride, groups, padding)


_convolution.defvjp(_convolution_forward, _convolution_backward)


def _kernel_gradient(
    x: jax.Array, g: jax.Array, k: int, stride: int, groups: int, padding: Padding
) -> jax.Array:
    """Returns the gradient of the kernel, float32 [k, k, inputs / groups, outputs].

    It is the convolution of `x` with `g`: the images are summed over as channels are in a forward pass, and the
    channels of `x` take the place of the images. The values of `g` are `stride` positions apart.
    """
    sizes = zip(x.shape[1:3], g.shape[1:3], padding, strict=True)
    convolve = functools.partial(
        lax.conv_general_dilated,
        window_strides=(1, 1),
        # The last rows and columns of `x` are beyond the last window if the stride does not divide the size.
        padding=[(low, k - low + stride * (outputs - 1) - inputs) for inputs, outputs, (low, _) in sizes],
        rhs_dilation=(stride, stride),
        dimension_numbers=("CHWN", "IHWO", "HWNC"),
        batch_group_count=groups,
    )
    return lax.platform_dependent(
        x,
        g,
        # For a float32 result cuDNN wants float32 inputs: 19 % more bytes in the first blocks
        # (`experiments.gpu_program`). So here the devices' parts, and their sum, are rounded to bfloat16.
        cuda=lambda x, g: convolve(x, g).astype(jnp.float32),
        default=functools.partial(convolve, preferred_element_type=jnp.float32),
    )


def grouped_depthwise_conv(x: jax.Array, kernel: jax.Array, stride: int, bands: int = 1) -> jax.Array:
    """Calls `convolution` with one group per channel, for x [B, H, W, C] and a kernel [k, k, C]."""
    return convolution(x, kernel[:, :, None], stride, x.shape[-1], bands)
