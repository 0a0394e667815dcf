"""`boxes.decode`: C kernel and NumPy form against mmdetection's results, a slow plain version and values by hand."""

import itertools
import math

import numpy as np
import pytest

from convert.labels import boxes
from convert.labels.boxes import Decoding, Photograph
from tests import golden

FORMS = {"kernel": boxes.compiled(), "numpy": boxes.numpy_decode}
SETTINGS = Decoding((64, 96), 4.0, 0.05, 0.5, 1000, 100)
ANCHORS = 9 * (8 * 12 + 4 * 6 + 2 * 3 + 1 * 2 + 1 * 1)


def stored(case: str) -> tuple[np.ndarray, Decoding, dict[str, np.ndarray]]:
    """Returns the outputs of the detector, the settings and the arrays of a stored case."""
    arrays = golden.load(case, "detection")
    kinds = [
        np.concatenate([_by_anchor(arrays[f"{kind}_{level}"]) for level in range(5)])
        for kind in ("cls_logits", "box_deltas")
    ]
    height, width = (8 * side for side in arrays["cls_logits_0"].shape[1:])
    settings = Decoding(
        (height, width),
        4.0,
        float(arrays["score_threshold"]),
        float(arrays["iou_threshold"]),
        int(arrays["nms_pre"]),
        int(arrays["max_per_image"]),
    )
    return np.concatenate(kinds, axis=1), settings, arrays


def _by_anchor(level: np.ndarray) -> np.ndarray:
    """[9 * n, h, w] -> [h * w * 9, n]"""
    return level.transpose(1, 2, 0).reshape(9 * level.shape[1] * level.shape[2], -1)


def noise(classes: int, spread: float = 2.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    logits = rng.normal(-3, spread, (ANCHORS, classes))
    return np.concatenate([logits, rng.normal(0, 0.5, (ANCHORS, 4))], axis=1).astype(np.float32)


def plain(head: np.ndarray, settings: Decoding, photograph: Photograph) -> list[tuple]:
    """The definition, one anchor at a time in float64: (x1, y1, x2, y2, score, label), best first."""
    found, row = [], 0
    for stride in (8, 16, 32, 64, 128):
        height, width = (-(-side // stride) for side in settings.input_size)
        level = []
        for y, x, ratio, octave in itertools.product(range(height), range(width), (0.5, 1, 2), range(3)):
            side = stride * settings.anchor_scale * 2 ** (octave / 3)
            w, h = side / math.sqrt(ratio), side * math.sqrt(ratio)
            *logits, dx, dy, dw, dh = map(float, head[row])
            row += 1
            w2, h2 = (s * math.exp(min(max(d, -4.1351666), 4.1351666)) / 2 for s, d in ((w, dw), (h, dh)))
            cx, cy = x * stride + w * dx, y * stride + h * dy
            corners = []
            for value, axis in ((cx - w2, 1), (cy - h2, 0), (cx + w2, 1), (cy + h2, 0)):
                corners.append(min(max(value, 0), photograph.size[axis]) / photograph.scale[axis])
            for label, logit in enumerate(logits):
                if 1 / (1 + math.exp(-logit)) > settings.score_threshold:
                    level.append((*corners, 1 / (1 + math.exp(-logit)), label))
        found += sorted(level, key=lambda box: -box[4])[: settings.per_level]
    kept = []
    for box in sorted(found, key=lambda box: -box[4]):
        if len(kept) == settings.per_image:
            break
        if box[2] > box[0] and box[3] > box[1] and all(_apart(box, k, settings) for k in kept):
            kept.append(box)
    return kept


def _apart(a: tuple, b: tuple, settings: Decoding) -> bool:
    width, height = (max(0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1))
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return a[5] != b[5] or width * height / (areas - width * height) <= settings.iou_threshold


# Against mmdetection.


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", ["nms_96x160", "nms_96x160_few", "nms_224x288_topk"])
def test_boxes_equal_mmdetection(case, form):
    head, settings, arrays = stored(case)
    size, (width, height) = tuple(arrays["image_shape"][:2].tolist()), arrays["scale_factor"].tolist()
    for scale, suffix in (((1.0, 1.0), ""), ((height, width), "_original_scale")):
        found = FORMS[form](head, settings, Photograph(size, scale))
        np.testing.assert_array_equal(found.labels, arrays["labels"])
        np.testing.assert_allclose(found.scores, arrays["scores"], rtol=0, atol=1e-6)
        np.testing.assert_allclose(found.boxes, arrays[f"boxes{suffix}"], rtol=0, atol=1e-3)


# Against the definition.


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"per_level": 7},
        {"per_level": 1, "per_image": 3},
        {"score_threshold": 0.3, "iou_threshold": 0.2},
        {"anchor_scale": 2.0},
        {"score_threshold": 0.0, "per_level": 50},
    ],
    ids=str,
)
@pytest.mark.parametrize("classes", [1, 5])
def test_boxes_equal_the_definition(classes, changes, form):
    head, settings = noise(classes), SETTINGS._replace(**changes)
    for photograph in (Photograph((64, 96)), Photograph((50, 81), (0.5, 0.75))):
        found, expected = FORMS[form](head, settings, photograph), plain(head, settings, photograph)
        assert found.labels.tolist() == [box[5] for box in expected] and len(expected) > 2
        np.testing.assert_allclose(found.scores, [box[4] for box in expected], rtol=0, atol=1e-6)
        np.testing.assert_allclose(found.boxes, [box[:4] for box in expected], rtol=0, atol=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_equal_scores(form):
    """The finer level first, then the higher logit (both scores are 1 in float32), then the first anchor."""
    head = np.zeros((ANCHORS, 6), np.float32)
    head[:, :2] = -9
    head[0, 0] = 20  # Level 1/8, anchor (0, 0).
    head[9 * 11, 0] = 30  # Level 1/8, the upper right corner.
    head[9 * 96, 1] = 40  # Level 1/16.
    head[9 * 101, 1] = 40
    found = FORMS[form](head, SETTINGS, Photograph((64, 96)))
    assert found.scores.tolist() == 4 * [1.0] and found.labels.tolist() == [0, 0, 1, 1]
    assert found.boxes[:, 0].tolist() == pytest.approx([65.372581, 0, 0, 34.745163], abs=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_nothing_found_and_values_that_are_no_numbers(form):
    head = np.full((ANCHORS, 7), -9, np.float32)
    assert [array.shape for array in FORMS[form](head, SETTINGS, Photograph((64, 96)))] == [
        (0, 4),
        (0,),
        (0,),
    ]
    head[5] = np.nan
    head[30, 0] = 3.0
    head[30, 3:] = np.nan
    with np.errstate(invalid="ignore"):
        assert not len(FORMS[form](head, SETTINGS, Photograph((64, 96))).scores)


def test_the_public_function_uses_the_kernel_and_checks_shapes():
    head = noise(3)
    found, expected = (
        boxes.decode(head, SETTINGS),
        boxes.numpy_decode(head, SETTINGS, Photograph((64, 96))),
    )
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-4)
    for wrong in (head[:-1], head[None], head[:, :4]):
        with pytest.raises(ValueError, match=r"expected \[1161, classes \+ 4\]"):
            boxes.decode(wrong, SETTINGS)


def test_numpy_takes_the_place_of_a_missing_compiler(monkeypatch):
    monkeypatch.setattr(boxes.compiler.shutil, "which", lambda name: None)
    with pytest.raises(OSError, match="no C compiler: found none of cc, gcc, clang"):
        boxes.compiled()
    assert boxes._kernel.__wrapped__() is boxes.numpy_decode


def test_a_box_is_found_again_by_class_and_overlap():
    def one(width: float, label: int) -> boxes.Boxes:
        corners = np.array([[0, 0, width, 10]], np.float32)
        return boxes.Boxes(corners, np.ones(1, np.float32), np.array([label], np.int32))

    decoding = Decoding((64, 64), 4.0, 0.05, 0.5, 1000, 100)
    cases = {
        (6, 0): True,
        (4, 0): False,
        (6, 1): False,
    }  # Overlaps of 0.6, 0.4 and 0.6 with a box of width 10.
    assert {case: bool(boxes.found_again(one(10, 0), one(*case), decoding)[0]) for case in cases} == cases
