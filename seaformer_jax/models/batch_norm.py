"""Batch normalisation with PyTorch's statistics. It replaces `nnx.BatchNorm` for five reasons.

- Running variance: PyTorch stores the unbiased one (times n / (n - 1)), Flax the biased one.
- Momentum: PyTorch's is the share of the new statistics, Flax's the share of the old ones. PyTorch's default of 0.1
  is therefore 0.9 in Flax, where the default is 0.99.
- Precision: Flax computes the variance as E[x^2] - E[x]^2 by default (`use_fast_variance=True`). That loses precision
  when the mean is large: at mean 300 and standard deviation 1 it is wrong by 0.8 %. Here both moments are taken about
  the running mean, see `_moments`.
- Groups: the batch can be split into groups that are normalised by their own statistics, as on separate GPUs.
- Gradient: the backward pass is written by hand. Of the activations it saves only `x`, and it compiles faster than
  the derivative that JAX would take.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

BN_EPSILON = 1e-5
BN_MOMENTUM = 0.9  # Share of the old statistics that is kept; PyTorch calls this a momentum of 0.1.


class BatchNorm(nnx.Module):
    """Batch normalisation over all axes but the last, with PyTorch's statistics.

    The running variance is the unbiased one (times n / (n - 1)), as in PyTorch and unlike Flax. With `groups`
    above 1 the batch is split into that many runs of consecutive images. Each is normalised by its own
    statistics, as if it were on its own GPU in PyTorch; the running statistics take the mean over the groups (timm's
    `--dist-bn reduce`). With 1 group the statistics cover the global batch, whatever the number of devices (SyncBN).
    """

    def __init__(self, features: int, *, groups: int = 1, initial_scale: float = 1.0):
        self.scale = nnx.Param(jnp.full((features,), initial_scale))
        self.bias = nnx.Param(jnp.zeros((features,)))
        self.mean = nnx.BatchStat(jnp.zeros((features,)))
        self.var = nnx.BatchStat(jnp.ones((features,)))
        self.groups = groups

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Normalises `x`, in float32, and returns it in its own dtype.

        Args:
            x: [B, ..., C].
            train: True normalises by the statistics of the batch and updates the running ones; False normalises by
                the running statistics.
        Raises:
            ValueError: `groups` does not divide B (checked in training only).
        """
        if not train:
            # Scale and deviation are per channel, so combining them first saves one product per value.
            factor = self.scale[...] * jax.lax.rsqrt(self.var[...] + BN_EPSILON)
            return _normalize(x, self.mean[...], factor, self.bias[...])
        if x.shape[0] % self.groups:
            raise ValueError(
                f"batch of {x.shape[0]} images does not divide into {self.groups} BatchNorm groups"
            )
        y, mean, var = _batch_norm(x, self.scale[...], self.bias[...], self.mean[...], self.groups)
        count = x.size // mean.size  # Values per group and channel.
        self._update(self.mean, mean.mean(0))
        # The unbiased variance. `max` avoids a division by 0 when a channel has a single value.
        self._update(self.var, var.mean(0) * (count / max(count - 1, 1)))
        return y

    def _update(self, running: nnx.BatchStat, batch: jax.Array) -> None:
        """Moves running statistics [C] towards those of the batch."""
        running[...] = BN_MOMENTUM * running[...] + (1 - BN_MOMENTUM) * batch


def _normalize(x: jax.Array, mean: jax.Array, factor: jax.Array, bias: jax.Array) -> jax.Array:
    return ((x.astype(jnp.float32) - mean) * factor + bias).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _batch_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, near: jax.Array, groups: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalises each group by its own statistics; no gradient flows through the returned statistics.

    The gradient is written by hand (Ioffe & Szegedy 2015, section 3). Besides values per channel, the backward pass
    saves only `x`. The derivative that JAX would take needs half as long again to compile.

    Args:
        x: [B, ..., C].
        scale, bias: [C].
        near: [C], a guess of the mean, see `_moments`.
        groups: Number of runs of consecutive images.
    Returns:
        y of the shape and dtype of `x`; mean and biased variance, float32 [groups, C].
    """
    return _batch_norm_forward(x, scale, bias, near, groups)[0]


def _batch_norm_forward(x, scale, bias, near, groups):
    mean, var = _moments(x, near, groups)
    rstd = jax.lax.rsqrt(var + BN_EPSILON)
    y = _normalize(x, _spread(mean, x), _spread(rstd * scale, x), bias)
    # The outputs, and what the backward pass needs. It recomputes the normalised values from `x`.
    return (y, mean, var), (x, mean, rstd, scale)


def _batch_norm_backward(groups, residuals, cotangents):
    x, mean, rstd, scale = residuals
    g = cotangents[0].astype(jnp.float32)  # Of y; the cotangents of mean and variance are ignored.
    count = x.size // mean.size
    normalized = (x.astype(jnp.float32) - _spread(mean, x)) * _spread(rstd, x)
    bias_grad, scale_grad = _group_sums(g, groups), _group_sums(g * normalized, groups)
    # Mean and variance depend on x, too: their part of the gradient is subtracted.
    centred = g - _spread(bias_grad / count, x) - normalized * _spread(scale_grad / count, x)
    x_grad = (_spread(rstd * scale, x) * centred).astype(x.dtype)
    return x_grad, scale_grad.sum(0), bias_grad.sum(0), jnp.zeros_like(scale)


_batch_norm.defvjp(_batch_norm_forward, _batch_norm_backward)


def _moments(x: jax.Array, near: jax.Array, groups: int) -> tuple[jax.Array, jax.Array]:
    """Returns mean and biased variance of each group, float32 [groups, C], from one pass over `x`.

    Both are taken about the constants `near` [C]: var = E[(x - near)^2] - (mean - near)^2. The mean itself would need
    a pass of its own before that of the variance. The difference loses precision only if the mean is many standard
    deviations away from `near`. With the running mean that is so in the first twenty steps at most: at a mean of 300
    standard deviations the variance is wrong by 2 to 4 % in the first steps, by 0.04 % after twenty, and by 5e-6
    after forty; at a mean of 30 by less than 2e-4 from the start. Rounding must not make it negative.
    """
    centred = x.astype(jnp.float32) - near
    count = x.size // x.shape[-1] // groups
    mean, square = _group_sums(centred, groups) / count, _group_sums(jnp.square(centred), groups) / count
    return near + mean, jnp.maximum(square - jnp.square(mean), 0)


def _group_sums(x: jax.Array, groups: int) -> jax.Array:
    """Returns the sums over each group, [groups, C].

    Each image is summed by itself before the groups are. An axis of groups in `x` itself would change the layout of
    the activations on TPUs, where the batch is the fastest axis.
    """
    images = x.sum(tuple(range(1, x.ndim - 1)))  # [B, C]
    return images.reshape(groups, -1, images.shape[-1]).sum(1)


def _spread(statistic: jax.Array, x: jax.Array) -> jax.Array:
    """Gives every image the values of its group: [groups, C] -> [B or 1, 1, ..., 1, C], to broadcast against x."""
    if len(statistic) > 1:
        statistic = jnp.repeat(statistic, len(x) // len(statistic), axis=0)
    return statistic.reshape(len(statistic), *([1] * (x.ndim - 2)), -1)
