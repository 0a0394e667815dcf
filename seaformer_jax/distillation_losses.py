"""The terms of multi-resolution distillation, in float32.

    L = CE(student(x'), y)
        + w_cross * CE(teacher's head(student's features), y)
        + w_feature * feature distance(student's features, teacher's features)
        + w_output * T^2 KL(teacher(x) || student(x'))

x is the image, x' the same image made smaller. The SeaFormer++ paper has four terms; their formulas and weights are
not public, so these are ours. The first is plain training. The other three compare at the resolution of the maps:
1/8 of the image (segmentation), 1/64 (features of classification), or one vector per image (its logits). Of the
teacher nothing is ever brought to the resolution of the labels: a position stands for all pixels of its cell, and
counts by the share of them that have a label. The cross-entropies are those of `losses.py`.
"""

import jax
import jax.numpy as jnp
import optax

_LEAST = 1e-12  # Instead of a divisor 0, where no pixel has a label.


def class_shares(labels: jax.Array, num_classes: int, stride: int) -> jax.Array:
    """Returns the share of every class among the pixels of every cell, float32 [B, H / stride, W / stride, C].

    Their sum over the classes is the share that has a label. `losses.soft_cross_entropy` of a cell's logits with
    them is the mean over the cell's pixels, 0 where there is no label.

    Args:
        labels: integer [B, H, W]; a pixel whose value is not in 0..num_classes-1 has no label.
        num_classes: of the logits.
        stride: pixels along one side of a cell; it divides H and W.
    """
    batch, height, width = labels.shape
    cells = labels.reshape(batch, height // stride, stride, width // stride, stride)
    return (cells[..., None] == jnp.arange(num_classes)).mean((2, 4), dtype=jnp.float32)


def feature_distance(student: jax.Array, teacher: jax.Array, shares: jax.Array) -> jax.Array:
    """sum_i s_i |f_i - t_i|^2 / sum_i s_i |t_i|^2: the squared error as a part of the teacher's energy.

    0 for equal features, 1 for features that are all 0; it does not depend on the scale of the teacher.

    Args:
        student: f, [B, h, w, C].
        teacher: t, of the same shape; no gradient flows to it.
        shares: s, float32 [B, h, w] in [0, 1].
    """
    teacher = jax.lax.stop_gradient(teacher).astype(jnp.float32)
    error = (shares * jnp.square(student.astype(jnp.float32) - teacher).sum(-1)).sum()
    return error / jnp.maximum((shares * jnp.square(teacher).sum(-1)).sum(), _LEAST)


def output_divergence(student: jax.Array, teacher: jax.Array, temperature: float) -> jax.Array:
    """T^2 KL(p || q) = T^2 sum_c p_c (log p_c - log q_c), p = softmax(teacher / T), q = softmax(student / T).

    T^2 keeps the size of the gradient as T grows (Hinton et al. 2015, https://arxiv.org/abs/1503.02531, section 2).

    Args:
        student: logits [..., C].
        teacher: logits of the same shape; no gradient flows to them.
        temperature: T > 0.
    Returns:
        float32 [...], in nats.
    """
    log_p = jax.nn.log_softmax(jax.lax.stop_gradient(teacher).astype(jnp.float32) / temperature)
    log_q = jax.nn.log_softmax(student.astype(jnp.float32) / temperature)
    return temperature**2 * optax.losses.kl_divergence_with_log_targets(log_q, log_p)
