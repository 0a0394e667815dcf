"""Normalisation of images and smoothing of targets inside the training step."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax


def normalize(
    images: jax.Array, mean: Sequence[float], std: Sequence[float], dtype: jnp.dtype = jnp.float32
) -> jax.Array:
    """Returns (images / 255 - mean) / std, computed in float32 and then cast.

    Args:
        images: [B, H, W, 3] in 0..255, uint8 or float32.
        mean: Mean of each channel, for images in [0, 1].
        std: Standard deviation of each channel, for images in [0, 1].
        dtype: Type of the result.

    Returns:
        Normalised images [B, H, W, 3] of type `dtype`.
    """
    scaled = images.astype(jnp.float32) / 255
    return ((scaled - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)).astype(dtype)


def zero_padding(images: jax.Array, sizes: jax.Array) -> jax.Array:
    """Returns images [B, H, W, 3] set to 0 beyond their sizes [B, 2].

    mmseg and mmdetection pad after normalising, with 0.
    """
    rows = jnp.arange(images.shape[1]) < sizes[:, :1]
    columns = jnp.arange(images.shape[2]) < sizes[:, 1:]
    return jnp.where((rows[:, :, None] & columns[:, None])[..., None], images, 0)


def smooth_one_hot(labels: jax.Array, num_classes: int, smoothing: float) -> jax.Array:
    """Returns smoothed one-hot targets [B, num_classes]: (1 - smoothing) * one_hot + smoothing / num_classes.

    Args:
        labels: int [B], in [0, num_classes).
        num_classes: Number of classes.
        smoothing: Label smoothing in [0, 1).
    """
    return optax.smooth_labels(jax.nn.one_hot(labels, num_classes), smoothing)
