"""Convolutions, batch normalisation and stochastic depth: the parts that SeaFormer is put together from.

Arrays are channels-last, [B, H, W, C]. Parameters are float32; a layer computes in the dtype of its input.
Initial values are those of PyTorch's `Conv2d` and `Linear`, which the official classification trainer leaves
in place (its `init_weights` is never called). They are drawn with NumPy: one small XLA program for every
shape of parameter would take half a minute to compile.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

BN_EPSILON = 1e-5
BN_MOMENTUM = 0.9  # Share of the old statistics that stays: PyTorch's momentum 0.1, said the other way round.


class Pointwise(nnx.Module):
    """1x1 convolution, or a linear layer: [..., in] -> [..., out] as one matrix product."""

    def __init__(self, inputs: int, outputs: int, rng: np.random.Generator, *, use_bias: bool = False):
        self.kernel = _torch_uniform(rng, (inputs, outputs), fan_in=inputs)
        self.bias = _torch_uniform(rng, (outputs,), fan_in=inputs) if use_bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...].astype(x.dtype)
        # Two axes: from the einsum of four, XLA would make a gradient that transposes its operands.
        y = (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)


class Conv(nnx.Module):
    """k x k convolution without bias, padded by k // 2 on every side: [B, H, W, in] -> [B, H', W', out].

    'SAME' padding is not the same thing: with stride 2 it pads even sizes on one side only.
    """

    def __init__(self, inputs: int, outputs: int, kernel_size: int, stride: int, rng: np.random.Generator):
        shape = (kernel_size, kernel_size, inputs, outputs)
        self.kernel = _torch_uniform(rng, shape, fan_in=kernel_size**2 * inputs)
        self.stride = stride

    def __call__(self, x: jax.Array) -> jax.Array:
        pad = self.kernel.shape[0] // 2
        return jax.lax.conv_general_dilated(
            x,
            self.kernel[...].astype(x.dtype),
            window_strides=(self.stride, self.stride),
            padding=((pad, pad), (pad, pad)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


class Depthwise(nnx.Module):
    """Depthwise k x k convolution padded by k // 2: [B, H, W, C] -> [B, ceil(H/s), ceil(W/s), C], s the stride."""

    def __init__(
        self,
        features: int,
        kernel_size: int,
        rng: np.random.Generator,
        *,
        stride: int = 1,
        use_bias: bool = False,
    ):
        fan_in = kernel_size**2  # PyTorch counts the inputs of one group.
        self.kernel = _torch_uniform(rng, (kernel_size, kernel_size, features), fan_in)
        self.bias = _torch_uniform(rng, (features,), fan_in) if use_bias else None
        self.stride = stride

    def __call__(self, x: jax.Array) -> jax.Array:
        y = depthwise_conv(x, self.kernel[...].astype(x.dtype), self.stride)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)


def _torch_uniform(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> nnx.Param:
    """Uniform in +-1/sqrt(fan_in): PyTorch's `kaiming_uniform_(a=sqrt(5))` and its default bias."""
    bound = fan_in**-0.5
    return nnx.Param(jnp.asarray(rng.uniform(-bound, bound, shape), jnp.float32))


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


class BatchNorm(nnx.Module):
    """Batch normalisation over all axes but the last, with PyTorch's statistics.

    The running variance is the unbiased one (times n / (n - 1)), as in PyTorch and unlike Flax. With `groups`
    above 1 the batch is split into that many runs of consecutive images, each normalised by its own
    statistics as on a PyTorch GPU of its own; the running statistics take the mean over the groups (timm's
    `--dist-bn reduce`). With 1 they cover the global batch, whatever the number of devices (SyncBN).
    """

    def __init__(self, features: int, *, groups: int = 1, initial_scale: float = 1.0):
        self.scale = nnx.Param(jnp.full((features,), initial_scale))
        self.bias = nnx.Param(jnp.zeros((features,)))
        self.mean = nnx.BatchStat(jnp.zeros((features,)))
        self.var = nnx.BatchStat(jnp.ones((features,)))
        self.groups = groups

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Normalises x [B, ..., C]; in training by batch statistics, which also move the running ones."""
        if not train:
            factor = self.scale[...] * jax.lax.rsqrt(self.var[...] + BN_EPSILON)
            return _normalize(x, self.mean[...], factor, self.bias[...])
        if x.shape[0] % self.groups:
            raise ValueError(
                f"batch of {x.shape[0]} images does not divide into {self.groups} BatchNorm groups"
            )
        grouped = x.reshape(self.groups, -1, *x.shape[1:])
        y, mean, var = _batch_norm(grouped, self.scale[...], self.bias[...])
        count = grouped.size // mean.size
        self._update(self.mean, mean.mean(0))
        self._update(self.var, var.mean(0) * (count / max(count - 1, 1)))
        return y.reshape(x.shape)

    def _update(self, running: nnx.BatchStat, batch: jax.Array) -> None:
        running[...] = BN_MOMENTUM * running[...] + (1 - BN_MOMENTUM) * batch


def _normalize(x: jax.Array, mean: jax.Array, factor: jax.Array, bias: jax.Array) -> jax.Array:
    return ((x.astype(jnp.float32) - mean) * factor + bias).astype(x.dtype)


@jax.custom_vjp
def _batch_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalises each group by its own statistics; no gradient flows through the statistics returned.

    The gradient is written out (Ioffe & Szegedy 2015, section 3): it keeps nothing but `x` for the way back, and
    XLA's own takes half as long again to compile.

    Args:
      x: [groups, B / groups, ..., C].
      scale, bias: [C].
    Returns:
      y like x; mean and biased variance, float32 [groups, C].
    """
    return _batch_norm_forward(x, scale, bias)[0]


def _batch_norm_forward(x, scale, bias):
    mean, var = _moments(x)
    rstd = jax.lax.rsqrt(var + BN_EPSILON)
    y = _normalize(x, _spread(mean, x), _spread(rstd * scale, x), bias)
    return (y, mean, var), (x, mean, rstd, scale)


def _batch_norm_backward(residuals, cotangents):
    x, mean, rstd, scale = residuals
    g = cotangents[0].astype(jnp.float32)
    count, axes = x.size // mean.size, tuple(range(1, x.ndim - 1))
    normalized = (x.astype(jnp.float32) - _spread(mean, x)) * _spread(rstd, x)
    by_bias, by_scale = g.sum(axes), (g * normalized).sum(axes)  # [groups, C]
    centred = g - _spread(by_bias / count, x) - normalized * _spread(by_scale / count, x)
    return (_spread(rstd * scale, x) * centred).astype(x.dtype), by_scale.sum(0), by_bias.sum(0)


_batch_norm.defvjp(_batch_norm_forward, _batch_norm_backward)


def _moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance of each group, in two passes: E[x^2] - E[x]^2 loses a large mean's variance."""
    x, axes = x.astype(jnp.float32), tuple(range(1, x.ndim - 1))
    mean = x.mean(axes)
    return mean, jnp.square(x - _spread(mean, x)).mean(axes)


def _spread(statistic: jax.Array, x: jax.Array) -> jax.Array:
    """[groups, C] -> [groups, 1, ..., C], to combine with x."""
    return statistic.reshape(len(statistic), *([1] * (x.ndim - 2)), -1)


class ConvBN(nnx.Module):
    """A convolution without bias, then batch normalisation (`Conv2d_BN` of the official code)."""

    def __init__(self, conv: nnx.Module, features: int, *, groups: int, initial_scale: float = 1.0):
        self.conv = conv
        self.bn = BatchNorm(features, groups=groups, initial_scale=initial_scale)

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return self.bn(self.conv(x), train)


def drop_path(x: jax.Array, rate: float, rngs: nnx.Rngs | None) -> jax.Array:
    """Stochastic depth: zeroes whole images of a residual branch with probability `rate`, scales the rest.

    Args:
      x: [B, H, W, C], the branch.
      rate: in [0, 1).
      rngs: with a `dropout` stream; None keeps every branch.
    """
    if rngs is None or rate == 0:
        return x
    keep = jax.random.bernoulli(rngs.dropout(), 1 - rate, (x.shape[0], 1, 1, 1))
    return jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)
