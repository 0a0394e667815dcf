"""Differences between two models, and scores on labelled images, compared with results by hand."""

import numpy as np
import pytest
from PIL import Image

from convert.export import accuracy, parity
from convert.export.preparation import Preparation
from convert.labels.boxes import Decoding
from seaformer_jax.data.labels import LabelSpec
from seaformer_jax.errors import UserError


def test_comparison_of_logits():
    trained = [np.float32([[3, 1, 0]]), np.float32([[0, 4, 0]])]
    exported = [np.float32([[3, 1, 1]]), np.float32([[5, 4, 0]])]
    found = parity.compare(trained, exported, parity.same_classes((64, 64)))
    assert (found.images, found.classes, found.largest, found.magnitude) == (2, 2, 5, 4)
    assert found.relative_rms == pytest.approx((26 / 26) ** 0.5)
    assert found.agreement == 0.5


def test_comparison_of_labels_is_at_the_size_of_the_input():
    logits = np.zeros((1, 1, 2, 2), np.float32)
    logits[0, 0, 1, 1] = 1  # Class 1 wins where its logit is above 0, in 3 of 4 columns; class 0 wins ties.
    found = parity.compare([logits], [np.uint8([[[0, 1, 1, 0]]])], parity.same_classes((1, 4)))
    assert (found.classes, found.agreement, found.largest) == (4, 0.75, None)


def head_with(*found: tuple[int, int]) -> np.ndarray:
    """Returns a detector's head [1, A, 2 + 4] that finds a box of a class at each (anchor, class)."""
    head = np.zeros((1, 1161, 6), np.float32)
    head[..., :2] = -9
    for anchor, label in found:
        head[0, anchor, label] = 3
    return head


def test_comparison_of_boxes():
    """Of five boxes in the first image two are in both models; the class of one differs. The second has none."""
    agreement = parity.same_boxes(Decoding((64, 96), 4.0, 0.05, 0.5, 1000, 100))
    trained, exported = head_with((0, 0), (99, 1)), head_with((0, 0), (99, 0), (400, 0))
    assert agreement(trained, exported).tolist() == [True, False, True, False, False]
    nothing = head_with()
    found = parity.compare([trained, nothing], [exported, nothing], agreement)
    assert (found.images, found.classes, found.agreement) == (2, 5, 0.4)
    assert parity.compare([nothing], [nothing], agreement).agreement == 1
    parity.check(parity.compare([nothing], [nothing], agreement), "fp32")


def comparison(**changes) -> parity.Comparison:
    fields = {
        "images": 3,
        "classes": 10**6,
        "largest": 1e-5,
        "magnitude": 1.0,
        "relative_rms": 1e-7,
        "agreement": 1.0,
    }
    return parity.Comparison(**(fields | changes))  # fmt: skip


@pytest.mark.parametrize(
    ("precision", "changes", "said"),
    [
        ("fp32", {"largest": 1e-4}, "largest difference is 1.0e-04 of the largest logit, limit 5e-05"),
        ("fp32", {"largest": float("nan")}, "largest difference is nan"),
        ("fp32", {"relative_rms": float("nan")}, "relative RMS is nan"),
        ("fp32", {"relative_rms": 2e-5}, "relative RMS is 2.0e-05, limit 1e-05"),
        ("fp32", {"agreement": 0.9998}, "0.999800 of the classes agree, at least 0.9999 must"),
        ("fp32", {"agreement": 0.5, "classes": 4, "largest": None}, "0.500000 of the classes agree"),
        ("fp16", {"largest": 6e-2}, "largest difference is 6.0e-02 of the largest logit, limit 5e-02"),
        ("fp16", {"relative_rms": 3e-2}, "relative RMS is 3.0e-02, limit 2e-02"),
        ("fp16", {"agreement": 0.98}, "0.980000 of the classes agree, at least 0.99 must"),
    ],
)
def test_beyond_the_tolerance(precision, changes, said):
    with pytest.raises(UserError, match=said):
        parity.check(comparison(**changes), precision)


@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1e-4), ("fp16", 5e-2), ("int8", 1e-1)])
def test_limits_on_a_device(precision, limit):
    expected = np.array([[4.0, -2.0, 1.0]])
    for share, ok in ((0.9, True), (1.1, False)):
        found = expected + np.array([0, share * limit * 4, 0])
        assert parity.on_device(found, expected, "logits", precision)["ok"] == ok


def test_within_the_tolerance():
    parity.check(comparison(), "fp32")
    parity.check(comparison(agreement=0.75, classes=4), "fp32")  # One near tie among four images.
    parity.check(comparison(relative_rms=1e-2, largest=1e-2), "fp16")
    parity.check(
        comparison(relative_rms=0.5, largest=1.0, agreement=0.9), "int8"
    )  # Limited by its accuracy only.


def test_miou_is_counted_at_the_size_of_the_input(tmp_path):
    for place in ("images", "annotations"):
        (tmp_path / "set" / place / "val").mkdir(parents=True)
    Image.fromarray(np.zeros((2, 4, 3), np.uint8)).save(tmp_path / "set/images/val/a.png")
    Image.fromarray(np.uint8([[1, 1, 2, 9], [1, 1, 2, 9]])).save(tmp_path / "set/annotations/val/a.png")
    labels = LabelSpec(("a", "b"), ((0, 0, 0), (1, 1, 1)), ignore_label=9, reduce_zero_label=True)
    preparation = Preparation("segmentation", (4, 8), (0,) * 3, (1,) * 3, True, 1.0, "bicubic")
    measured = accuracy.Validation(str(tmp_path / "set" / "images" / "val"), labels, preparation)

    def predict(image):
        assert image.shape == (4, 8, 3)
        found = np.zeros((1, 4, 8), np.uint8)
        found[:, :, 3:] = 1  # One column of class 0 is wrong; the last two columns are ignored.
        return found

    # Class 0: 3 of 4 columns are found, and none too many: 3/4. Class 1: 2 columns are right, 1 is too many: 2/3.
    assert measured.score(predict) == pytest.approx(100 * (3 / 4 + 2 / 3) / 2)


def test_accuracy_of_a_classifier(tmp_path):
    for index, name in enumerate(("cat", "dog")):
        (tmp_path / "val" / name).mkdir(parents=True)
        for number in range(2):
            image = np.full((8, 8, 3), 100 * index + 10 * number, np.uint8)
            Image.fromarray(image).save(tmp_path / "val" / name / f"{number}.png")
    preparation = Preparation("classification", (8, 8), (0,) * 3, (1,) * 3, True, 1.0, "bicubic")
    measured = accuracy.Validation(str(tmp_path / "val"), LabelSpec(("cat", "dog")), preparation)
    assert (len(measured), measured.metric) == (4, "top1")
    assert measured.score(lambda image: np.float32([[0, float(image.mean()) - 105]])) == 75
