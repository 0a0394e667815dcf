"""What a RetinaNet needs besides its network, in plain PyTorch: targets, losses and final boxes.

As mmdetection computes them. It is the other side of `detection_speed`; anchors are a tensor [A, 4].
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

_MOST = abs(math.log(16 / 1000))


def iou_matrix(a: Tensor, b: Tensor) -> Tensor:
    """Returns the intersection over union of boxes [n, 4] and [m, 4]: [n, m]."""
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    common = (high - low).clamp(min=0).prod(-1)
    areas = [(x[:, 2:] - x[:, :2]).prod(-1) for x in (a, b)]
    return common / (areas[0][:, None] + areas[1][None] - common).clamp(min=1e-6)


def assign(anchors: Tensor, boxes: Tensor) -> Tensor:
    """Returns the box of every anchor [A]: its index, -1 for negatives, -2 for ignored ones."""
    overlaps = iou_matrix(boxes, anchors)
    best, box = overlaps.max(0)
    assigned = torch.full_like(box, -2)
    assigned[best < 0.4] = -1
    assigned[best >= 0.5] = box[best >= 0.5]
    closest = overlaps.max(1).values
    for g in range(len(boxes)):
        assigned[overlaps[g] == closest[g]] = g
    return assigned


def loss(logits: Tensor, deltas: Tensor, anchors: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
    """Returns the focal loss plus the L1 loss of a batch.

    Args:
        logits: [B, A, K].
        deltas: [B, A, 4].
        anchors: [A, 4].
        boxes: [B, G, 4], all of them valid.
        labels: [B, G].
    """
    total, positives = logits.new_zeros(()), 0
    for image in range(len(logits)):
        assigned = assign(anchors, boxes[image])
        positive = assigned >= 0
        target = torch.zeros_like(logits[image])
        target[positive, labels[image][assigned[positive]]] = 1
        total = total + _focal(logits[image], target)[assigned > -2].sum()
        wanted = _encode(boxes[image][assigned[positive]], anchors[positive])
        total = total + F.l1_loss(deltas[image][positive], wanted, reduction="sum")
        positives += max(int(positive.sum()), 1)
    return total / positives


def _focal(logits: Tensor, target: Tensor) -> Tensor:
    p = logits.sigmoid()
    wrong = p * (1 - target) + (1 - p) * target
    weight = (0.25 * target + 0.75 * (1 - target)) * wrong**2
    return weight * F.binary_cross_entropy_with_logits(logits, target, reduction="none")


def _encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    sizes = [x[:, 2:] - x[:, :2] for x in (boxes, anchors)]
    centres = [(x[:, 2:] + x[:, :2]) / 2 for x in (boxes, anchors)]
    return torch.cat([(centres[0] - centres[1]) / sizes[1], torch.log(sizes[0] / sizes[1])], -1)


def detect(
    logits: Tensor, deltas: Tensor, anchors: Tensor, counts: list[int], size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the 100 best boxes of one image with their scores and labels.

    Args:
        logits: [A, K].
        deltas: [A, 4].
        anchors: [A, 4].
        counts: Anchors of every level.
        size: Height and width of the image.
    """
    scores, rows, labels, first = [], [], [], 0
    for level in logits.sigmoid().split(counts):
        values, pairs = level.flatten().topk(min(1000, level.numel()))
        scores.append(values)
        rows.append(first + pairs // level.shape[1])
        labels.append(pairs % level.shape[1])
        first += len(level)
    scores, rows, labels = (torch.cat(parts) for parts in (scores, rows, labels))
    order = scores.argsort(descending=True)
    scores, rows, labels = scores[order], rows[order], labels[order]
    boxes = _decode(deltas[rows], anchors[rows], size)
    filled = (boxes[:, 2:] > boxes[:, :2]).all(-1)
    boxes, scores, labels = boxes[filled], scores[filled], labels[filled]
    covers = (iou_matrix(boxes, boxes) > 0.5) & (labels[:, None] == labels[None])
    kept, alive = [], torch.ones(len(boxes), dtype=torch.bool)
    for i in range(len(boxes)):
        if alive[i]:
            kept.append(i)
            alive &= ~covers[i]
        if len(kept) == 100:
            break
    return boxes[kept], scores[kept], labels[kept]


def _decode(deltas: Tensor, anchors: Tensor, size: tuple[int, int]) -> Tensor:
    sides = anchors[:, 2:] - anchors[:, :2]
    centre = (anchors[:, 2:] + anchors[:, :2]) / 2 + deltas[:, :2] * sides
    half = sides * deltas[:, 2:].clamp(-_MOST, _MOST).exp() / 2
    limit = torch.tensor([size[1], size[0]], dtype=torch.float32)
    low, high = (torch.minimum(x.clamp(min=0), limit) for x in (centre - half, centre + half))
    return torch.cat([low, high], -1)
