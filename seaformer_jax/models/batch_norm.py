"""Batch normalisation with PyTorch's statistics."""

import jax
import jax.numpy as jnp
from flax import nnx

BN_EPSILON = 1e-5
BN_MOMENTUM = 0.9  # Share of the old statistics that stays: PyTorch's momentum 0.1, said the other way round.


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
