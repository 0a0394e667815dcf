"""Convolution with several channels in a group as a sum of shifted products, the form for CPUs (see `forms`)."""

import jax
import jax.numpy as jnp

from seaformer_jax.models.convolution import product

# One product for each group, which is the last but one axis of [B, H, W, groups, channels].
_product_by_group = jax.vmap(product, in_axes=(-2, 1), out_axes=-2)


def shifted_grouped_conv(x: jax.Array, kernel: jax.Array, groups: int) -> jax.Array:
    """Sums the k*k taps of the kernel, each a shifted view of `x` times the tap's matrices, one for each group.

    The arguments and the result are those of `forms.grouped_conv`; the gradient of the kernel is float32.
    """
    b, height, width, _ = x.shape
    k, pad = len(kernel), (len(kernel) // 2,) * 2
    x = jnp.pad(x.reshape(b, height, width, groups, -1), ((0, 0), pad, pad, (0, 0), (0, 0)))
    taps = kernel.reshape(k, k, x.shape[-1], groups, -1)
    shifted = (
        _product_by_group(x[:, i : i + height, j : j + width], taps[i, j]) for i in range(k) for j in range(k)
    )
    return sum(shifted).reshape(b, height, width, -1)
