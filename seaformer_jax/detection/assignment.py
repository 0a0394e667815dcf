"""Assigns anchors to labelled boxes: which anchors have to predict a box, and which one.

Source: `MaxIoUAssigner` of mmdetection with the settings of RetinaNet (pos_iou_thr=0.5, neg_iou_thr=0.4,
min_pos_iou=0, gt_max_assign_all=True).
"""

import jax
import jax.numpy as jnp
import numpy as np

from seaformer_jax.detection.boxes import iou

NEGATIVE, IGNORED = -1, -2
_POSITIVE_IOU, _NEGATIVE_IOU = 0.5, 0.4


def assign(
    anchors: np.ndarray, boxes: jax.Array, valid: jax.Array, inside: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns the box of every anchor.

    1. An anchor whose best IoU is at least 0.5 gets that box, the first one of equals. Below 0.4 it is negative; in
       between it is ignored.
    2. The anchors that overlap a box most get that box in any case, all of them if several are equal. If an anchor is
       such for several boxes, it gets the last one.

    One pass over the boxes does both. One box at a time is compared with the anchors, so there is no array of
    anchors x boxes. (mmdetection's has 81 MB for one image of 1344x800 with 100 boxes.)

    Args:
        anchors: float32 [A, 4].
        boxes: float32 [B, G, 4].
        valid: bool [B, G], False for padding. The boxes of an image come before its padding.
        inside: bool [B, A], False for anchors that take no part because they lie in the padding of an image.
    Returns:
        Index of the box, NEGATIVE or IGNORED, int32 [B, A]; and the best IoU of every anchor, float32 [B, A], 0 where
        there is none.
    """
    shape, boxes, valid = inside.shape, jnp.asarray(boxes), jnp.asarray(valid)
    start = jnp.zeros(shape), jnp.full(shape, NEGATIVE, jnp.int32), jnp.full(shape, NEGATIVE, jnp.int32)

    def compare(g: jax.Array, carry: tuple[jax.Array, jax.Array, jax.Array]):
        best, best_box, closest = carry
        overlap = jnp.where(inside & valid[:, g, None], iou(anchors, boxes[:, g, None]), 0)
        # The barrier makes one array of it. Computed twice, it might be rounded differently, and no anchor would
        # equal the maximum.
        overlap = jax.lax.optimization_barrier(overlap)
        most = overlap.max(1, keepdims=True)
        is_closest = (overlap == most) & (most > 0)
        better = overlap > best
        return (
            jnp.where(better, overlap, best),
            jnp.where(better, g, best_box),
            jnp.where(is_closest, g, closest),
        )

    # Only as many turns as the fullest image has boxes.
    turns = valid.sum(1).max()
    best, best_box, closest = jax.lax.fori_loop(0, turns, compare, start)
    by_threshold = jnp.where(best < _NEGATIVE_IOU, NEGATIVE, IGNORED)
    by_threshold = jnp.where(best >= _POSITIVE_IOU, best_box, by_threshold)
    assigned = jnp.where(closest >= 0, closest, by_threshold)
    return jnp.where(inside, assigned, IGNORED), best
