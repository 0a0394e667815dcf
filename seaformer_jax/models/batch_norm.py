"""Batch normalisation with PyTorch's statistics. It replaces `nnx.BatchNorm` for five reasons.

- Running variance: PyTorch stores the unbiased one (times n / (n - 1)), Flax the biased one.
- Momentum: PyTorch's is the share of the new statistics, Flax's the share of the old ones. PyTorch's default of 0.1
  is therefore 0.9 in Flax, where the default is 0.99.
- Precision: Flax computes the variance as E[x^2] - E[x]^2 by default (`use_fast_variance=True`). That loses precision
  when the mean is large: at mean 300 and standard deviation 1 it is wrong by 0.8 %. Here the mean is computed first
  and the variance in a second pass.
- Groups: the batch can be split into groups that are normalised by their own statistics, as on separate GPUs.
- Gradient: the backward pass is written by hand. Of the activations it saves only `x`, and it compiles faster than
  the derivative that JAX would take.
"""

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
        grouped = x.reshape(self.groups, -1, *x.shape[1:])
        y, mean, var = _batch_norm(grouped, self.scale[...], self.bias[...])
        count = grouped.size // mean.size  # Values per group and channel.
        self._update(self.mean, mean.mean(0))
        # The unbiased variance. `max` avoids a division by 0 when a channel has a single value.
        self._update(self.var, var.mean(0) * (count / max(count - 1, 1)))
        return y.reshape(x.shape)

    def _update(self, running: nnx.BatchStat, batch: jax.Array) -> None:
        """Moves running statistics [C] towards those of the batch."""
        running[...] = BN_MOMENTUM * running[...] + (1 - BN_MOMENTUM) * batch


def _normalize(x: jax.Array, mean: jax.Array, factor: jax.Array, bias: jax.Array) -> jax.Array:
    return ((x.astype(jnp.float32) - mean) * factor + bias).astype(x.dtype)


@jax.custom_vjp
def _batch_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalises each group by its own statistics; no gradient flows through the returned statistics.

    The gradient is written by hand (Ioffe & Szegedy 2015, section 3). Besides values per channel, the backward pass
    saves only `x`. The derivative that JAX would take needs half as long again to compile.

    Args:
        x: [groups, B / groups, ..., C].
        scale, bias: [C].
    Returns:
        y of the shape and dtype of `x`; mean and biased variance, float32 [groups, C].
    """
    return _batch_norm_forward(x, scale, bias)[0]


def _batch_norm_forward(x, scale, bias):
    mean, var = _moments(x)
    rstd = jax.lax.rsqrt(var + BN_EPSILON)
    y = _normalize(x, _spread(mean, x), _spread(rstd * scale, x), bias)
    # The outputs, and what the backward pass needs. It recomputes the normalised values from `x`.
    return (y, mean, var), (x, mean, rstd, scale)


def _batch_norm_backward(residuals, cotangents):
    x, mean, rstd, scale = residuals
    g = cotangents[0].astype(jnp.float32)  # Of y; the cotangents of mean and variance are ignored.
    count, axes = x.size // mean.size, tuple(range(1, x.ndim - 1))
    normalized = (x.astype(jnp.float32) - _spread(mean, x)) * _spread(rstd, x)
    bias_grad, scale_grad = g.sum(axes), (g * normalized).sum(axes)  # [groups, C]
    # Mean and variance depend on x, too: their part of the gradient is subtracted.
    centred = g - _spread(bias_grad / count, x) - normalized * _spread(scale_grad / count, x)
    return (_spread(rstd * scale, x) * centred).astype(x.dtype), scale_grad.sum(0), bias_grad.sum(0)


_batch_norm.defvjp(_batch_norm_forward, _batch_norm_backward)


def _moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns mean and biased variance of each group, float32 [groups, C].

    Two passes: the one-pass form E[x^2] - E[x]^2 loses the variance when the mean is large.
    """
    x, axes = x.astype(jnp.float32), tuple(range(1, x.ndim - 1))
    mean = x.mean(axes)
    return mean, jnp.square(x - _spread(mean, x)).mean(axes)


def _spread(statistic: jax.Array, x: jax.Array) -> jax.Array:
    """Reshapes [groups, C] to [groups, 1, ..., 1, C], which broadcasts against x."""
    return statistic.reshape(len(statistic), *([1] * (x.ndim - 2)), -1)
