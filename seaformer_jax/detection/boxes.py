"""Boxes (x1, y1, x2, y2) in pixels: overlap, and the coding of a box relative to an anchor."""

import math

import jax
import jax.numpy as jnp
import numpy as np

# Largest |dw| and |dh| that are decoded (mmdetection's `DeltaXYWHBBoxCoder`, wh_ratio_clip=16/1000).
_MOST = abs(math.log(16 / 1000))
_SMALLEST_UNION = 1e-6  # mmdetection's `bbox_overlaps`.


def iou(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the intersection over union of boxes [..., 4] and [..., 4], broadcast against each other: [...]."""
    ax1, ay1, ax2, ay2 = (a[..., i] for i in range(4))
    bx1, by1, bx2, by2 = (b[..., i] for i in range(4))
    width = jnp.maximum(jnp.minimum(ax2, bx2) - jnp.maximum(ax1, bx1), 0)
    height = jnp.maximum(jnp.minimum(ay2, by2) - jnp.maximum(ay1, by1), 0)
    common = width * height
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - common
    return common / jnp.maximum(union, _SMALLEST_UNION)


def encode(boxes: jax.Array, anchors: np.ndarray) -> jax.Array:
    """Returns the deltas (dx, dy, dw, dh) [..., 4] that `decode` turns into `boxes`.

    The shift of the centre is in units of the anchor's sides, and the change of the sides is a natural logarithm.

    Args:
        boxes: [..., 4], of positive width and height.
        anchors: [..., 4].
    """
    (centre, size), (anchor_centre, anchor_size) = _centres(boxes), _centres(anchors)
    return jnp.concatenate([(centre - anchor_centre) / anchor_size, jnp.log(size / anchor_size)], -1)


def decode(deltas: jax.Array, anchors: jax.Array, image_size: jax.Array) -> jax.Array:
    """Returns the boxes that deltas describe, clipped to the image.

    Args:
        deltas: (dx, dy, dw, dh), [..., 4]. The logarithms dw and dh are limited to +-4.135, a factor of 62.5.
        anchors: [..., 4].
        image_size: Height and width of the image without padding, [2].
    Returns:
        Boxes [..., 4] with x in [0, width] and y in [0, height].
    """
    anchor_centre, anchor_size = _centres(anchors)
    centre = anchor_centre + deltas[..., :2] * anchor_size
    half = anchor_size * jnp.exp(jnp.clip(deltas[..., 2:], -_MOST, _MOST)) / 2
    limit = image_size[::-1].astype(jnp.float32)
    return jnp.concatenate([jnp.clip(centre - half, 0, limit), jnp.clip(centre + half, 0, limit)], -1)


def _centres(boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the centres (x, y) and the sizes (width, height) of boxes [..., 4], both [..., 2]."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return (low + high) / 2, high - low
