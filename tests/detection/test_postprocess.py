"""Candidates and suppression against mmdetection's, and against a plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convert.labels import boxes as on_phones
from seaformer_jax.detection import anchors, postprocess
from seaformer_jax.detection.postprocess import Detections, Settings
from tests import golden
from tests.detection.arrays import flat, levels

CASES = ["nms_96x160", "nms_96x160_few", "nms_224x288_topk"]


def inputs(case: dict[str, np.ndarray], scale: np.ndarray) -> tuple:
    settings = Settings(
        float(case["score_threshold"]),
        int(case["nms_pre"]),
        float(case["iou_threshold"]),
        int(case["max_per_image"]),
    )
    logits, deltas = (flat(levels(case, name)) for name in ("cls_logits", "box_deltas"))
    size = jnp.asarray(case["image_shape"])
    return (
        logits,
        deltas,
        tuple(case["batch_shape"].tolist()),
        size,
        jnp.asarray(scale, jnp.float32),
        4.0,
        settings,
    )


@pytest.mark.parametrize("name", CASES)
def test_candidates_equal_mmdetection(name):
    case = golden.load(name, "detection")
    found = postprocess.candidates(*inputs(case, np.ones(2)))
    kept = np.asarray(found.scores) > 0
    np.testing.assert_array_equal(found.labels[kept], case["candidate_labels"])
    np.testing.assert_allclose(found.scores[kept], case["candidate_scores"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.boxes[kept], case["candidate_boxes"], rtol=0, atol=1e-3)


@pytest.mark.parametrize("suffix", ["", "_original_scale"])
@pytest.mark.parametrize("name", CASES)
def test_detections_equal_mmdetection(name, suffix):
    case = golden.load(name, "detection")
    scale = case["scale_factor"][::-1] if suffix else np.ones(2)
    logits, deltas, padded, size, scale, anchor_scale, settings = inputs(case, scale)
    batch = (logits[None], deltas[None], padded, size[None], scale[None], anchor_scale, settings)
    found = jax.tree.map(lambda x: np.asarray(x[0]), postprocess.detect(*batch))
    kept = found.scores > 0
    np.testing.assert_array_equal(found.labels[kept], case[f"labels{suffix}"])
    np.testing.assert_allclose(found.scores[kept], case[f"scores{suffix}"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.boxes[kept], case[f"boxes{suffix}"], rtol=0, atol=1e-3)


def plain_nms(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, threshold: float) -> list[int]:
    """Returns the indices that greedy suppression keeps, best first."""
    kept = []
    for i in np.argsort(-scores, kind="stable"):
        for j in kept:
            low, high = np.maximum(boxes[i, :2], boxes[j, :2]), np.minimum(boxes[i, 2:], boxes[j, 2:])
            common = np.prod(np.maximum(high - low, 0))
            union = sum(np.prod(boxes[k, 2:] - boxes[k, :2]) for k in (i, j)) - common
            if labels[i] == labels[j] and common / union > threshold:
                break
        else:
            kept.append(int(i))
    return kept


def test_suppression_equals_a_plain_loop():
    rng = np.random.default_rng(3)
    corner = rng.uniform(0, 60, (300, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(10, 40, (300, 2))], -1).astype(np.float32)
    scores, labels = rng.random(300).astype(np.float32), rng.integers(0, 3, 300).astype(np.int32)
    scores[[5, 50]] = scores[7]  # Equal scores: the first one wins.
    expected = plain_nms(boxes, scores, labels, 0.5)
    settings = Settings(per_image=len(expected) + 3)
    found = postprocess.suppress(Detections(*map(jnp.asarray, (boxes, scores, labels))), settings)
    np.testing.assert_array_equal(found.boxes[: len(expected)], boxes[expected])
    np.testing.assert_array_equal(found.scores, [*scores[expected], 0, 0, 0])


def test_detections_equal_those_of_the_code_for_phones():
    """All levels take part; some scores are exactly at the threshold, and boxes are repeated."""
    rng, size = np.random.default_rng(0), (96, 160)
    count = sum(anchors.level_counts(*size))
    logits = rng.normal(-1, 1.5, (count, 3)).astype(np.float32)
    logits[rng.random(logits.shape) < 0.1] = 0  # A score of exactly 0.5.
    deltas = rng.normal(0, 0.2, (count, 4)).astype(np.float32)
    decoding = on_phones.Decoding(size, 4.0, 0.5, 0.5, 40, 30)
    expected = on_phones.numpy_decode(
        np.concatenate([logits, deltas], 1), decoding, on_phones.Photograph(size)
    )
    settings = Settings(0.5, 40, 0.5, 30)
    arguments = logits[None], deltas[None], size, jnp.array([size]), jnp.ones((1, 2)), 4.0, settings
    found = jax.tree.map(lambda x: np.asarray(x[0]), postprocess.detect(*arguments))
    assert len(expected.scores) == 30
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.boxes, expected.boxes, rtol=0, atol=1e-3)


def test_a_score_at_the_threshold_is_no_box():
    logits = np.full((1, sum(anchors.level_counts(32, 32)), 1), -9, np.float32)
    logits[0, 5] = 0
    arguments = (
        np.zeros((*logits.shape[:2], 4), np.float32),
        (32, 32),
        jnp.array([[32, 32]]),
        jnp.ones((1, 2)),
        4.0,
    )
    for threshold, boxes in ((0.5, 0), (0.49, 1)):
        found = postprocess.detect(logits, *arguments, Settings(score_threshold=threshold))
        assert int((found.scores > 0).sum()) == boxes


def test_without_suppression_every_box_comes_once():
    """At a threshold of 1 a box does not even cover itself."""
    boxes = jnp.array([[0, 0, 4, 4], [0, 0, 4, 4], [9, 9, 12, 12]], jnp.float32)
    found = postprocess.suppress(
        Detections(boxes, jnp.array([0.5, 0.9, 0.7]), jnp.zeros(3, jnp.int32)),
        Settings(iou_threshold=1.0, per_image=4),
    )
    np.testing.assert_allclose(found.scores, [0.9, 0.7, 0.5, 0])
