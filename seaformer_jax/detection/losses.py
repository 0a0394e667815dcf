"""The losses of RetinaNet as sums over all anchors, in float32.

Source: `FocalLoss` (alpha=0.25, gamma=2) and `L1Loss` of mmdetection, and the divisor of its `AnchorHead.loss`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seaformer_jax.detection import anchors as anchor_grid
from seaformer_jax.detection import boxes as coder
from seaformer_jax.detection.assignment import IGNORED, assign

_ALPHA = 0.25  # Weight of the true classes; the other classes have 1 - alpha. Gamma, the exponent, is 2.


class Targets(NamedTuple):
    """What every anchor should predict.

    Attributes:
        classes: Class of the anchor's box, int32 [B, A]; -1 for background.
        weights: 1 for anchors that count, 0 for ignored ones, float32 [B, A].
        positive: Whether an anchor has a box, bool [B, A].
        deltas: The box relative to the anchor, float32 [B, A, 4]; 0 for anchors without a box.
    """

    classes: jax.Array
    weights: jax.Array
    positive: jax.Array
    deltas: jax.Array

    def divisor(self) -> jax.Array:
        """Returns the number of positive anchors of the batch; an image without any counts as one."""
        return jnp.maximum(self.positive.sum(1), 1).sum().astype(jnp.float32)


def targets(
    anchors: np.ndarray, inside: jax.Array, boxes: jax.Array, labels: jax.Array, valid: jax.Array
) -> Targets:
    """Returns the targets of all anchors of a batch.

    Args:
        anchors: float32 [A, 4].
        inside: bool [B, A], as from `anchors_inside`.
        boxes: Labelled boxes, float32 [B, G, 4].
        labels: Their classes, int32 [B, G].
        valid: bool [B, G], False for padding.
    """
    assigned, _ = assign(anchors, boxes, valid, inside)
    positive, index = assigned >= 0, jnp.maximum(assigned, 0)
    own = jnp.take_along_axis(boxes, index[..., None], axis=1)
    # Padding has no size, and its logarithm would be infinite: those anchors are compared with themselves.
    own = jnp.where(positive[..., None], own, anchors)
    return Targets(
        classes=jnp.where(positive, jnp.take_along_axis(labels, index, axis=1), -1),
        weights=(assigned != IGNORED).astype(jnp.float32),
        positive=positive,
        deltas=coder.encode(own, anchors),
    )


def anchors_inside(sizes: jax.Array, height: int, width: int) -> jax.Array:
    """Returns whether the cell of each anchor begins inside its image, bool [B, A].

    Args:
        sizes: Height and width of every image, int [B, 2], padding not included.
        height, width: Size that all images are padded to.
    """
    # mmdetection pads every image to a multiple of 32 before it pads it to the size of the batch, and only the second
    # padding has no anchors.
    padded = -(-sizes // 32) * 32
    return (anchor_grid.corners(height, width) < padded[:, None]).all(-1)


@jax.custom_vjp
def focal_loss(logits: jax.Array, classes: jax.Array, weights: jax.Array) -> jax.Array:
    """Returns the sum of the focal loss over all anchors and classes, float32 scalar.

    Every class is a binary problem of its own: with p the probability of the wrong answer, the loss is
    alpha p^2 (-log(1 - p)). Only the logits have a gradient.

    Args:
        logits: float32 [B, A, K].
        classes: int32 [B, A] in [0, K); another number means that no class is right.
        weights: float32 [B, A].
    """
    _, logit, alpha = _wrong_answers(logits, classes, weights)
    return (alpha * jax.nn.sigmoid(logit) ** 2 * jax.nn.softplus(logit)).sum()


def _wrong_answers(
    logits: jax.Array, classes: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns whether a class is right, the logit of its wrong answer, and its alpha times weight, all [B, A, K]."""
    # The comparison is part of the fused loop: no one-hot array exists.
    right = classes[..., None] == jnp.arange(logits.shape[-1])
    alpha = jnp.where(right, _ALPHA, 1 - _ALPHA) * weights[..., None]
    return right, jnp.where(right, -logits, logits), alpha


def _focal_gradient(residuals: tuple[jax.Array, ...], g: jax.Array) -> tuple[jax.Array, None, None]:
    # d/dx p^2 softplus(x) = p^2 (2 (1 - p) softplus(x) + p) with p = sigmoid(x). JAX would keep several arrays of the
    # size of the logits, of which 200,000 anchors have 64 MB per image; this needs none.
    right, logit, alpha = _wrong_answers(*residuals)
    p = jax.nn.sigmoid(logit)
    slope = g * alpha * p**2 * (2 * (1 - p) * jax.nn.softplus(logit) + p)
    return jnp.where(right, -slope, slope), None, None


focal_loss.defvjp(lambda *arguments: (focal_loss(*arguments), arguments), _focal_gradient)


def box_loss(deltas: jax.Array, wanted: Targets) -> jax.Array:
    """Returns the sum of |deltas - wanted| over the four coordinates of the positive anchors, float32 scalar."""
    difference = jnp.abs(deltas.astype(jnp.float32) - wanted.deltas).sum(-1)
    return jnp.where(wanted.positive, difference, 0).sum()
