"""The loss terms of multi-resolution distillation, in float32.

    L = CE(student(x'), y)
        + w_cross * CE(teacher's head(student's features), y)
        + w_feature * feature distance(student's features, teacher's features)
        + w_output * T^2 KL(teacher(x) || student(x'))

x is the image, x' the same image made smaller, and y the labels. The SeaFormer++ paper has four terms; their formulas
and weights are not public, so these are ours.

The first term is plain training. The other three compare at the resolution of the feature maps: 1/8 of the image for
segmentation, 1/64 for the features of classification, and one vector per image for its logits. No output of the
teacher is ever upsampled to the resolution of the labels. Instead, each position of a map represents all pixels of
its cell, and is weighted by the share of them that have a label. The cross-entropies are those of `losses.py`.
"""

import jax
import jax.numpy as jnp
import optax

_MIN_DIVISOR = 1e-12  # Avoids a division by 0 if no pixel has a label.


def class_shares(labels: jax.Array, num_classes: int, stride: int) -> jax.Array:
    """Returns the share of every class among the pixels of every cell.

    The shares of a cell add up to the share of its pixels that have a label. `losses.soft_cross_entropy` of a cell's
    logits with these shares is the mean loss over the cell's pixels, where a pixel without a label counts as 0.

    Args:
        labels: Integer [B, H, W]; a pixel whose value is not in 0..num_classes-1 has no label.
        num_classes: Number of classes of the logits, C.
        stride: Side of a cell in pixels; it divides H and W.
    Returns:
        float32 [B, H / stride, W / stride, C], in [0, 1].
    """
    batch, height, width = labels.shape
    cells = labels.reshape(batch, height // stride, stride, width // stride, stride)
    return (cells[..., None] == jnp.arange(num_classes)).mean((2, 4), dtype=jnp.float32)


def feature_distance(student: jax.Array, teacher: jax.Array, shares: jax.Array) -> jax.Array:
    """Returns sum_i s_i |f_i - t_i|^2 / sum_i s_i |t_i|^2: the squared error relative to the teacher's energy.

    It is 0 if the features are equal and 1 if those of the student are all 0. It does not change if both are scaled.

    Args:
        student: Features f of the student, [B, h, w, C].
        teacher: Features t of the teacher, of the same shape; no gradient flows to them.
        shares: Share s of each cell's pixels that have a label, float32 [B, h, w] in [0, 1].
    """
    teacher = jax.lax.stop_gradient(teacher).astype(jnp.float32)
    error = (shares * jnp.square(student.astype(jnp.float32) - teacher).sum(-1)).sum()
    return error / jnp.maximum((shares * jnp.square(teacher).sum(-1)).sum(), _MIN_DIVISOR)


def output_divergence(student: jax.Array, teacher: jax.Array, temperature: float) -> jax.Array:
    """Returns T^2 KL(p || q) = T^2 sum_c p_c (log p_c - log q_c), p = softmax(teacher / T), q = softmax(student / T).

    The factor T^2 keeps the size of the gradient as T grows (Hinton et al. 2015, https://arxiv.org/abs/1503.02531,
    section 2).

    Args:
        student: Logits [..., C].
        teacher: Logits of the same shape; no gradient flows to them.
        temperature: Temperature T > 0.
    Returns:
        float32 [...], in nats.
    """
    log_p = jax.nn.log_softmax(jax.lax.stop_gradient(teacher).astype(jnp.float32) / temperature)
    log_q = jax.nn.log_softmax(student.astype(jnp.float32) / temperature)
    return temperature**2 * optax.losses.kl_divergence_with_log_targets(log_q, log_p)
