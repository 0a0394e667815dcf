"""From the outputs of a detector to its final boxes: thresholds, decoding and non-maximum suppression, inside jit.

Source: `BaseDenseHead.predict` of mmdetection 3.3 and `batched_nms` of mmcv.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seaformer_jax.detection import anchors as anchor_grid
from seaformer_jax.detection.boxes import decode, iou


class Settings(NamedTuple):
    """Which boxes are kept.

    Attributes:
        score_threshold: Scores have to be above this one.
        per_level: Most pairs of anchor and class that a level of the pyramid proposes.
        iou_threshold: Of two boxes of a class that overlap by more, only the one with the higher score is kept.
        per_image: Most boxes of an image.
    """

    score_threshold: float = 0.05
    per_level: int = 1000
    iou_threshold: float = 0.5
    per_image: int = 100


class Detections(NamedTuple):
    """The boxes of an image or, with a first axis B, of several; the best come first.

    Attributes:
        boxes: (x1, y1, x2, y2) in pixels, float32 [D, 4].
        scores: float32 [D], 0 where there are fewer boxes than D.
        labels: Classes, int32 [D].
    """

    boxes: jax.Array
    scores: jax.Array
    labels: jax.Array


def detect(
    logits: jax.Array,
    deltas: jax.Array,
    padded_size: tuple[int, int],
    sizes: jax.Array,
    scales: jax.Array,
    anchor_scale: float,
    settings: Settings,
) -> Detections:
    """Returns the boxes of every image of a batch in pixels of the original image.

    Args:
        logits: Raw class logits [B, A, K].
        deltas: Box deltas [B, A, 4].
        padded_size: Height and width of the model's input.
        sizes: Height and width of every image in it, int [B, 2], padding not included.
        scales: Input size / original size, (height, width), float32 [B, 2].
        anchor_scale: As in `anchors.anchors`.
        settings: Which boxes are kept.
    """

    def one(logits: jax.Array, deltas: jax.Array, size: jax.Array, scale: jax.Array) -> Detections:
        found = candidates(logits, deltas, padded_size, size, scale, anchor_scale, settings)
        return suppress(found, settings)

    return jax.vmap(one)(logits, deltas, sizes, scales)


def candidates(
    logits: jax.Array,
    deltas: jax.Array,
    padded_size: tuple[int, int],
    size: jax.Array,
    scale: jax.Array,
    anchor_scale: float,
    settings: Settings,
) -> Detections:
    """Returns the boxes of one image before the suppression, by level and score; the arguments are as in `detect`.

    A candidate whose score is not above the threshold, or whose box is empty, has score 0.
    """
    counts = anchor_grid.level_counts(*padded_size)
    edges = np.cumsum(counts)[:-1]
    levels = [
        _best_pairs(level, first, settings.per_level)
        for level, first in zip(jnp.split(logits, edges), (0, *edges), strict=True)
    ]
    scores, rows, labels = (jnp.concatenate(parts) for parts in zip(*levels, strict=True))
    anchors = jnp.asarray(anchor_grid.anchors(*padded_size, anchor_scale))
    boxes = decode(deltas[rows], anchors[rows], size) / jnp.tile(scale[::-1], 2)
    filled = (boxes[:, 2:] > boxes[:, :2]).all(-1)
    return Detections(boxes, jnp.where(filled & (scores > settings.score_threshold), scores, 0), labels)


def _best_pairs(logits: jax.Array, first: int, count: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns scores, anchors and classes of the `count` pairs of a level with the highest scores, best first.

    Args:
        logits: Logits of the level, [a, K].
        first: Index of the level's first anchor; it is added to the anchors.
        count: Number of pairs; a small level may have fewer.
    """
    # The best pairs belong to the anchors with the best classes: so two short searches take the place of one among
    # a x K.
    _, rows = jax.lax.top_k(logits.max(-1), min(count, len(logits)))
    chosen = logits[rows]
    values, pairs = jax.lax.top_k(chosen.ravel(), min(count, chosen.size))
    anchor, label = jnp.divmod(pairs, logits.shape[-1])
    return jax.nn.sigmoid(values), first + rows[anchor], label.astype(jnp.int32)


def suppress(found: Detections, settings: Settings) -> Detections:
    """Returns the best boxes of one image after greedy non-maximum suppression within each class.

    As many times as there may be boxes, the best remaining candidate is taken and those that it covers are dropped.
    This is exact, and needs neither a sorted list nor an array of candidates x candidates.

    Args:
        found: Candidates [C].
        settings: The threshold of the IoU and the number D of boxes to return.
    """

    def take(scores: jax.Array, _: None) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        best = scores.argmax()
        covered = (iou(found.boxes, found.boxes[best]) > settings.iou_threshold) & (
            found.labels == found.labels[best]
        )
        taken = jnp.arange(len(scores)) == best
        return jnp.where(covered | taken, 0, scores), (best, scores[best])

    _, (index, scores) = jax.lax.scan(take, found.scores, length=settings.per_image)
    return Detections(found.boxes[index], scores, found.labels[index])
