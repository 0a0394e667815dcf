"""Depthwise convolution as a sum of shifted products, the form for CPUs (see `forms`)."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from seaformer_jax import mesh


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def shifted_depthwise_conv(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Sums the k*k taps of the kernel, each a shifted, strided view of `x` times the tap's weights.

    The images are processed one after the other in a loop, because XLA writes the inputs of a loop to memory first.
    Without the loop XLA would recompute what produced `x`, a whole BatchNorm, for each of the k*k taps.

    The arguments and the result are those of `forms.depthwise_conv`; the gradient of the kernel is float32.
    """
    kernel = kernel.astype(x.dtype)
    return _scan_images(lambda _, image: (None, _sum_of_taps(image, kernel, stride)), None, x)[1]


def _scan_images(body: Callable, carry, *arrays: jax.Array):
    """Loops over the images of arrays [B, ...] with `body(carry, *images)`.

    The batch axis is sharded over the devices, and a loop must not run along a sharded axis. So every step
    processes one image of every device: `images` are [devices, ...].

    Returns:
        The last carry, and the outputs of `body` for all images, [B, ...].
    """
    devices = _devices(arrays[0])
    if devices == 1:
        # The scanned arrays get no axis of size 1: with one, XLA would choose another layout and copy everything.
        def one(carry, images):
            carry, y = body(carry, *(image[None] for image in images))
            return carry, y[0]

        return jax.lax.scan(one, carry, arrays)
    # [B, ...] -> [B / devices, devices, ...]: the loop runs along the first axis, the second stays sharded.
    split = [x.reshape(devices, -1, *x.shape[1:]).swapaxes(0, 1) for x in arrays]
    carry, y = jax.lax.scan(lambda carry, images: body(carry, *images), carry, split)
    return carry, y.swapaxes(0, 1).reshape(-1, *y.shape[2:])


def _devices(x: jax.Array) -> int:
    """Returns the number of devices that the batch `x` [B, ...] is sharded over; 1 if that does not divide it."""
    devices = mesh.batch_devices()
    return devices if len(x) % devices == 0 else 1


def _sum_of_taps(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    k = kernel.shape[0]
    out_shape = (-(-x.shape[1] // stride), -(-x.shape[2] // stride))  # Rounded up.
    x = _pad_window(x, k)
    return sum(_tap(x, i, j, stride, out_shape) * kernel[i, j] for i in range(k) for j in range(k))


def _shifted_forward(x, kernel, stride):
    return shifted_depthwise_conv(x, kernel, stride), (x, kernel)


def _shifted_backward(stride, residuals, g):
    """Returns the gradients of `x` and `kernel`. The ones that JAX derives take ten times as long on CPUs.

    XLA vectorises element-wise sums on CPUs, but not the reduction of a product to [C]. The kernel's gradient is
    therefore summed element by element over the images, and each sum is reduced to [C] once, at the end.
    """
    x, kernel = residuals
    k, mirrored = kernel.shape[0], kernel[::-1, ::-1].astype(x.dtype)
    # Padding that puts `g` back on the grid of the input: stride - 1 zeros between the values, the rest at the end.
    gaps = [
        (0, size - 1 - stride * (n - 1), stride - 1)
        for size, n in zip(x.shape[1:3], g.shape[1:3], strict=True)
    ]

    def one_image(sums, x, g):  # [devices, H, W, C], [devices, H', W', C]
        spread = jax.lax.pad(g, jnp.zeros((), g.dtype), [(0, 0, 0), *gaps, (0, 0, 0)])
        x = _pad_window(x, k)
        taps = (_tap(x, i, j, stride, g.shape[1:3]) for i in range(k) for j in range(k))
        sums = [total + tap.astype(jnp.float32) * g for total, tap in zip(sums, taps, strict=True)]
        # The gradient of x is the convolution of `spread` with the mirrored kernel.
        return sums, _sum_of_taps(spread, mirrored, 1)

    zeros = [jnp.zeros((_devices(g), *g.shape[1:]), jnp.float32)] * k**2
    sums, x_grad = _scan_images(one_image, zeros, x, g)
    kernel_grad = jnp.stack([total.sum((0, 1, 2)) for total in sums]).reshape(kernel.shape)
    return x_grad, kernel_grad


shifted_depthwise_conv.defvjp(_shifted_forward, _shifted_backward)


def _pad_window(x: jax.Array, k: int) -> jax.Array:
    return jnp.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)))


def _tap(padded: jax.Array, i: int, j: int, stride: int, shape: tuple[int, int]) -> jax.Array:
    """Returns the values that tap (i, j) of the kernel reads for each output position, [B, *shape, C]."""
    rows = slice(i, i + stride * (shape[0] - 1) + 1, stride)
    columns = slice(j, j + stride * (shape[1] - 1) + 1, stride)
    return padded[:, rows, columns]
