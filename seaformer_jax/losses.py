"""Losses, in float32."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax


def soft_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """-sum_c targets_c log softmax(logits)_c.

    With smoothed one-hot targets this is timm's `LabelSmoothingCrossEntropy`, with mixed ones its
    `SoftTargetCrossEntropy` (timm/loss/cross_entropy.py).

    Args:
        logits: [B, num_classes].
        targets: [B, num_classes], rows summing to 1.
    Returns:
        [B].
    """
    return optax.losses.softmax_cross_entropy(logits.astype(jnp.float32), targets)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """-log softmax(logits)[label]: logits [B, num_classes], integer labels [B] -> [B]."""
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)


class PixelSums(NamedTuple):
    """Sums over the pixels of a batch that have a label."""

    loss: jax.Array  # of -log softmax(logits)[label]
    right: jax.Array  # pixels whose label has the largest logit
    pixels: jax.Array

    def accuracy(self) -> jax.Array:
        """Share of the pixels that are right; 0 where there are none."""
        return self.right / jnp.maximum(self.pixels, 1)


def pixel_cross_entropy(logits: jax.Array, labels: jax.Array) -> PixelSums:
    """Cross-entropy of logits that are upsampled bilinearly to the labels, as mmseg's `BaseDecodeHead.losses`.

    The upsampled logits of one band of pixels, that between two rows of logits, exist at a time. Their gradient
    is taken in the same pass, so that nothing of their size is kept or computed twice.

    Args:
        logits: [B, h, w, C].
        labels: integer [B, f*h, f*w], f even; a pixel whose value is not in 0..C-1 has no label.
    Raises:
        ValueError: the labels are not of such a size.
    """
    (_, h, w, _), (_, height, width) = logits.shape, labels.shape
    if height % (2 * h) or height * w != width * h:
        raise ValueError(f"labels of {height}x{width} are no even multiple of the logits' {h}x{w}")
    return _sum_over_pixels(logits.astype(jnp.float32), labels)


@jax.custom_vjp
def _sum_over_pixels(logits: jax.Array, labels: jax.Array) -> PixelSums:
    bands = (_row_pairs(logits), _label_bands(labels, logits.shape))
    _, sums = jax.lax.scan(lambda _, band: (None, _sum_over_band(*band)[1]), None, bands)
    return jax.tree.map(lambda values: values.sum(0), sums)


def _forward(logits: jax.Array, labels: jax.Array) -> tuple[PixelSums, jax.Array]:
    pairs, transpose = jax.vjp(_row_pairs, logits)
    gradient_of_band = jax.grad(_sum_over_band, has_aux=True)
    bands = (pairs, _label_bands(labels, logits.shape))
    _, (gradients, sums) = jax.lax.scan(lambda _, band: (None, gradient_of_band(*band)), None, bands)
    return jax.tree.map(lambda values: values.sum(0), sums), transpose(gradients)[0]


_sum_over_pixels.defvjp(_forward, lambda gradient, of: (of.loss * gradient, None))


def _row_pairs(logits: jax.Array) -> jax.Array:
    """[B, h, w, C] -> [h+1, B, 2, w+2, C]: neighbouring rows; beyond the edges, logits are as at the edges."""
    padded = jnp.pad(logits, ((0, 0), (1, 1), (1, 1), (0, 0)), "edge")
    return jnp.stack([padded[:, :-1], padded[:, 1:]], 2).swapaxes(0, 1)


def _label_bands(labels: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """[B, f*h, f*w] -> [h+1, B, f, w+1, f]: the pixels between the centres of neighbouring logits."""
    batch, h, w, _ = shape
    f = labels.shape[1] // h
    half = (f // 2, f // 2)
    padded = jnp.pad(labels, ((0, 0), half, half), constant_values=jnp.iinfo(labels.dtype).max)
    return padded.reshape(batch, h + 1, f, w + 1, f).swapaxes(0, 1)


def _sum_over_band(rows: jax.Array, labels: jax.Array) -> tuple[jax.Array, PixelSums]:
    """rows [B, 2, w+2, C], labels [B, f, w+1, f] -> the sum of losses, to differentiate, and all sums."""
    factor, classes = labels.shape[1], rows.shape[-1]
    right = ((jnp.arange(factor) + 0.5) / factor)[:, None]  # Weight of the right or lower neighbour.
    rows = rows[:, :1] * (1 - right[..., None]) + rows[:, 1:] * right[..., None]
    logits = rows[:, :, :-1, None] * (1 - right) + rows[:, :, 1:, None] * right  # [B, f, w+1, f, C]
    own = jnp.arange(classes) == labels[..., None]
    own_logit = jnp.where(own, logits, 0).sum(-1)
    valid = (labels >= 0) & (labels < classes)
    largest = jax.lax.stop_gradient(logits.max(-1))
    log_total = jnp.log(jnp.exp(logits - largest[..., None]).sum(-1)) + largest
    loss = jnp.where(valid, log_total - own_logit, 0).sum()
    return loss, PixelSums(loss, (valid & (own_logit >= largest)).sum(), valid.sum())
