"""Cross-entropy losses for images and for pixels, computed in float32."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax


def soft_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns -sum_c targets_c log softmax(logits)_c.

    With smoothed one-hot targets this is timm's `LabelSmoothingCrossEntropy`, with mixed targets its
    `SoftTargetCrossEntropy` (timm/loss/cross_entropy.py).

    Args:
        logits: [B, num_classes].
        targets: Shares of the classes, [B, num_classes]; each row sums to 1.
    Returns:
        One loss per example, float32 [B], in nats.
    """
    return optax.losses.softmax_cross_entropy(logits.astype(jnp.float32), targets)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns -log softmax(logits)[label], float32 [B], for logits [B, num_classes] and integer labels [B]."""
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)


class PixelSums(NamedTuple):
    """Sums over the pixels of a batch that have a label.

    Attributes:
        loss: Sum of -log softmax(logits)[label].
        right: Number of pixels whose label has the largest logit.
        pixels: Number of pixels that have a label.
    """

    loss: jax.Array
    right: jax.Array
    pixels: jax.Array

    def accuracy(self) -> jax.Array:
        """Returns the share of the pixels that are right; 0 if no pixel has a label."""
        return self.right / jnp.maximum(self.pixels, 1)


def pixel_cross_entropy(logits: jax.Array, labels: jax.Array) -> PixelSums:
    """Sums the cross-entropy of logits upsampled bilinearly to the labels, as mmseg's `BaseDecodeHead.losses` does.

    Only the pixels between two neighbouring rows of logits are upsampled at a time. Their gradient is computed in the
    same pass. So the upsampled logits of the whole image are neither stored nor computed twice.

    Args:
        logits: [B, h, w, C].
        labels: Integer [B, f*h, f*w], f even; a pixel whose value is not in 0..C-1 has no label.
    Raises:
        ValueError: The labels are not of such a size.
    """
    (_, h, w, _), (_, height, width) = logits.shape, labels.shape
    if height % (2 * h) or height * w != width * h:
        raise ValueError(f"labels are {height}x{width}; expected an even multiple of the logits' {h}x{w}")
    return _sum_over_pixels(logits.astype(jnp.float32), labels)


@jax.custom_vjp
def _sum_over_pixels(logits: jax.Array, labels: jax.Array) -> PixelSums:
    # The form without a gradient; where a gradient is wanted, JAX calls `_forward` instead.
    bands = (_row_pairs(logits), _label_bands(labels, logits.shape))
    _, sums = jax.lax.scan(lambda _, band: (None, _sum_over_band(*band)[1]), None, bands)
    return jax.tree.map(lambda values: values.sum(0), sums)


def _forward(logits: jax.Array, labels: jax.Array) -> tuple[PixelSums, jax.Array]:
    """Returns the sums, and the gradient of the loss [B, h, w, C], which is all that the backward pass needs."""
    pairs, transpose = jax.vjp(_row_pairs, logits)
    gradient_of_band = jax.grad(_sum_over_band, has_aux=True)
    bands = (pairs, _label_bands(labels, logits.shape))
    _, (gradients, sums) = jax.lax.scan(lambda _, band: (None, gradient_of_band(*band)), None, bands)
    return jax.tree.map(lambda values: values.sum(0), sums), transpose(gradients)[0]


# Only the loss has a gradient; the two counts and the labels have none.
_sum_over_pixels.defvjp(_forward, lambda gradient, cotangents: (cotangents.loss * gradient, None))


def _row_pairs(logits: jax.Array) -> jax.Array:
    """Returns all pairs of neighbouring rows of logits [B, h, w, C] as [h+1, B, 2, w+2, C].

    The logits beyond an edge equal those at the edge, as in PyTorch's interpolation with `align_corners=False`.
    """
    padded = jnp.pad(logits, ((0, 0), (1, 1), (1, 1), (0, 0)), "edge")
    return jnp.stack([padded[:, :-1], padded[:, 1:]], 2).swapaxes(0, 1)


def _label_bands(labels: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Cuts labels [B, f*h, f*w] into the pixels between the centres of neighbouring logits, [h+1, B, f, w+1, f]."""
    batch, h, w, _ = shape
    f = labels.shape[1] // h
    # The centre of the first logit is f / 2 pixels from the edge. The padding has a value that is no label.
    half = (f // 2, f // 2)
    padded = jnp.pad(labels, ((0, 0), half, half), constant_values=jnp.iinfo(labels.dtype).max)
    return padded.reshape(batch, h + 1, f, w + 1, f).swapaxes(0, 1)


def _sum_over_band(rows: jax.Array, labels: jax.Array) -> tuple[jax.Array, PixelSums]:
    """Sums over the pixels between two rows of logits.

    Args:
        rows: Two neighbouring rows of logits, [B, 2, w+2, C].
        labels: Labels of the pixels between them, [B, f, w+1, f].
    Returns:
        The sum of the losses, which is differentiated, and all sums.
    """
    # 1. Bilinear upsampling, first between the two rows, then between neighbouring columns.
    factor, classes = labels.shape[1], rows.shape[-1]
    weight = ((jnp.arange(factor) + 0.5) / factor)[:, None]  # Weight of the right or lower neighbour.
    rows = rows[:, :1] * (1 - weight[..., None]) + rows[:, 1:] * weight[..., None]
    logits = rows[:, :, :-1, None] * (1 - weight) + rows[:, :, 1:, None] * weight  # [B, f, w+1, f, C]
    # 2. The logit of each pixel's label, as a masked sum.
    is_label = jnp.arange(classes) == labels[..., None]
    label_logit = jnp.where(is_label, logits, 0).sum(-1)
    valid = (labels >= 0) & (labels < classes)
    # 3. The logarithm of the softmax's denominator. Subtracting the largest logit avoids an overflow of `exp`.
    largest = jax.lax.stop_gradient(logits.max(-1))
    log_total = jnp.log(jnp.exp(logits - largest[..., None]).sum(-1)) + largest
    loss = jnp.where(valid, log_total - label_logit, 0).sum()
    return loss, PixelSums(loss, (valid & (label_logit >= largest)).sum(), valid.sum())
