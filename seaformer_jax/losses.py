"""Losses, in float32, one value per example."""

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
