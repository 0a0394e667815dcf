"""Average precision against stored results of pycocotools."""

import numpy as np
import pytest

from seaformer_jax.data.detection import coco as reader
from seaformer_jax.data.detection.truth import Truth
from seaformer_jax.evaluation import coco
from tests import golden
from tests.paths import SHARED


def found(detections: np.ndarray, truth: Truth) -> dict[str, np.ndarray]:
    """Returns detections [D, 7] (image id, category id, x, y, w, h, score) as a task gives them."""
    images = [np.flatnonzero(detections[:, 0] == i) for i in truth.image_ids]
    most = max(map(len, images))
    boxes, scores = np.zeros((len(images), most, 4)), np.zeros((len(images), most))
    labels = np.zeros((len(images), most), int)
    for i, rows in enumerate(images):
        x, y, w, h, score = detections[rows, 2:].T
        boxes[i, : len(rows)] = np.stack([x, y, x + w, y + h], -1)
        scores[i, : len(rows)] = score
        labels[i, : len(rows)] = [truth.category_ids.index(c) for c in detections[rows, 1]]
    return {"index": np.arange(len(images)), "boxes": boxes, "scores": scores, "labels": labels}


def truth_of(case: dict[str, np.ndarray]) -> Truth:
    ids, rows = case["gt_images"][:, 0], case["gt_annotations"]
    categories = tuple(case["category_ids"].tolist())
    return Truth(
        image_ids=ids,
        sizes=case["gt_images"][:, :0:-1].astype(np.int32),
        category_ids=categories,
        image=np.searchsorted(ids, rows[:, 1]),
        label=np.array([categories.index(c) for c in rows[:, 2]]),
        boxes=rows[:, 3:7],
        area=rows[:, 7],
        crowd=rows[:, 8] > 0,
        ignored=np.zeros(len(rows), bool),
    )


def check(case: dict[str, np.ndarray], truth: Truth) -> coco.Verdict:
    names = [f"class {k}" for k in truth.category_ids]
    verdict = coco.Judge(truth, names)(found(case["detections"], truth))
    # Boxes go through corners, which costs the last digits.
    np.testing.assert_allclose([verdict.scores[name] for name in coco.NAMES], case["stats"], atol=1e-9)
    np.testing.assert_allclose([row[2] for row in verdict.classes], case["per_category_ap"], atol=1e-9)
    np.testing.assert_allclose([row[3] for row in verdict.classes], case["per_category_ap50"], atol=1e-9)
    return verdict


def test_bccd_equals_pycocotools():
    case = golden.load("ap_bccd_val", "detection")
    check(case, reader.read(SHARED / "data/bccd/annotations/instances_val.json").truth)


def test_crowds_limits_and_absent_classes_equal_pycocotools(tmp_path):
    case = golden.load("ap_crowd_maxdets", "detection")
    verdict = check(case, truth_of(case))
    verdict.write(tmp_path)
    table = (tmp_path / "per_class.md").read_text().splitlines()
    absent = [name for name, _, ap, _ in verdict.classes if np.isnan(ap)]
    assert absent and f"| {absent[0]} | 0 | - | - |" in table


def tiny() -> Truth:
    """Returns one image with one medium box."""
    none = np.zeros(1, bool)
    return Truth(
        np.array([5]), np.array([[100, 100]]), (3,), np.array([0]), np.array([0]),
        np.float64([[10, 10, 50, 50]]), np.float64([2500]), none, none,
    )  # fmt: skip


def test_a_perfect_box_and_none():
    judge = coco.Judge(tiny(), ["thing"])
    box = {"index": np.array([0]), "boxes": np.float32([[[10, 10, 60, 60]]]), "labels": np.zeros((1, 1), int)}
    perfect = judge(box | {"scores": np.float32([[0.5]])})
    assert perfect.scores["AP"] == pytest.approx(1) and perfect.scores["AR1"] == pytest.approx(1)
    assert perfect.scores["APs"] == -1
    assert perfect.detections == [{"image_id": 5, "category_id": 3, "bbox": [10, 10, 50, 50], "score": 0.5}]
    nothing = judge(box | {"scores": np.float32([[0]])})
    assert not any(nothing.scores.values()) and nothing.detections == [] and nothing.classes[0][2] == 0
