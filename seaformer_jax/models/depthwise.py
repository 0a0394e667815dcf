"""Depthwise convolution in two forms: shifted products for CPUs, XLA's grouped convolution elsewhere."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp


@functools.partial(jax.jit, static_argnames=("stride",))
def depthwise_conv(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Depthwise convolution in the form that is fastest on the backend in use.

    XLA's grouped convolution takes 6 to 40 times as long on CPUs as a sum of k*k shifted products
    (`experiments/depthwise_speed.py`). Jitted under its own name for `seaformer_jax.models.macs`.

    Args:
        x: [B, H, W, C].
        kernel: [k, k, C], k odd.
        stride: of both axes.
    Returns:
        [B, ceil(H/stride), ceil(W/stride), C].
    """
    if kernel.shape[0] == stride == 1:
        return x * kernel[0, 0]
    form = shifted_depthwise_conv if jax.default_backend() == "cpu" else grouped_depthwise_conv
    return form(x, kernel, stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def shifted_depthwise_conv(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Sum over the k*k taps of a shifted, strided view of `x` times the tap's weights, image after image.

    A loop's inputs are written to memory first. Without it XLA would compute what made `x`, a whole BatchNorm, anew
    for each of the k*k taps.
    """
    return _scan_images(lambda _, image: (None, _sum_of_taps(image, kernel, stride)), None, x)[1]


def _scan_images(body: Callable, carry, *arrays: jax.Array):
    """Scans arrays [B, ...] with `body(carry, *images)`, images being one of every device, [devices, ...].

    A loop must not run along the axis that is sharded.

    Returns:
        The last carry, and what `body` made of the images, [B, ...].
    """
    devices = _devices(arrays[0])
    if devices == 1:

        def one(
            carry, images
        ):  # Without an axis of size 1: XLA would choose another layout and copy everything.
            carry, y = body(carry, *(image[None] for image in images))
            return carry, y[0]

        return jax.lax.scan(one, carry, arrays)
    split = [x.reshape(devices, -1, *x.shape[1:]).swapaxes(0, 1) for x in arrays]
    carry, y = jax.lax.scan(lambda carry, images: body(carry, *images), carry, split)
    return carry, y.swapaxes(0, 1).reshape(-1, *y.shape[2:])


def _devices(x: jax.Array) -> int:
    return jax.device_count() if len(x) % jax.device_count() == 0 else 1


def _sum_of_taps(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    k = kernel.shape[0]
    out_shape = (-(-x.shape[1] // stride), -(-x.shape[2] // stride))
    x = _pad_window(x, k)
    return sum(_tap(x, i, j, stride, out_shape) * kernel[i, j] for i in range(k) for j in range(k))


def _shifted_forward(x, kernel, stride):
    return shifted_depthwise_conv(x, kernel, stride), (x, kernel)


def _shifted_backward(stride, residuals, g):
    """Both gradients by hand: XLA's own take ten times as long on CPUs.

    It vectorises element-wise sums, but not the reduction of a product to [C]: hence the running sums.
    """
    x, kernel = residuals
    k, mirrored = kernel.shape[0], kernel[::-1, ::-1]
    # g spread out again to the input's grid.
    gaps = [
        (0, size - 1 - stride * (n - 1), stride - 1)
        for size, n in zip(x.shape[1:3], g.shape[1:3], strict=True)
    ]

    def one_image(sums, x, g):  # [devices, H, W, C], [devices, H', W', C]
        spread = jax.lax.pad(g, jnp.zeros((), g.dtype), [(0, 0, 0), *gaps, (0, 0, 0)])
        x = _pad_window(x, k)
        taps = (_tap(x, i, j, stride, g.shape[1:3]) for i in range(k) for j in range(k))
        sums = [total + tap.astype(jnp.float32) * g for total, tap in zip(sums, taps, strict=True)]
        return sums, _sum_of_taps(spread, mirrored, 1)

    zeros = [jnp.zeros((_devices(g), *g.shape[1:]), jnp.float32)] * k**2
    sums, by_x = _scan_images(one_image, zeros, x, g)
    by_kernel = jnp.stack([total.sum((0, 1, 2)) for total in sums]).reshape(kernel.shape)
    return by_x, by_kernel.astype(kernel.dtype)


shifted_depthwise_conv.defvjp(_shifted_forward, _shifted_backward)


def _pad_window(x: jax.Array, k: int) -> jax.Array:
    return jnp.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)))


def _tap(padded: jax.Array, i: int, j: int, stride: int, shape: tuple[int, int]) -> jax.Array:
    rows = slice(i, i + stride * (shape[0] - 1) + 1, stride)
    columns = slice(j, j + stride * (shape[1] - 1) + 1, stride)
    return padded[:, rows, columns]


def grouped_depthwise_conv(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """XLA's grouped convolution with as many groups as channels."""
    k, channels = kernel.shape[0], kernel.shape[2]
    return jax.lax.conv_general_dilated(
        x,
        kernel[:, :, None],
        window_strides=(stride, stride),
        padding=((k // 2, k // 2), (k // 2, k // 2)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=channels,
    )
