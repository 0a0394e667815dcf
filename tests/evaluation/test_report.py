"""Tables and pictures of an evaluation."""

import numpy as np
from PIL import Image

from seaformer_jax.evaluation import report
from seaformer_jax.metrics import ConfusionMatrix

# Rows are true classes and columns predicted ones. No image is of class c, but one image is predicted as c.
COUNTS = ConfusionMatrix(np.array([[6, 2, 0], [1, 3, 1], [0, 0, 0]]))


def test_per_class_table(tmp_path):
    report.write_classification(COUNTS, ["a", "b", "c"], tmp_path)
    assert (tmp_path / "per_class.md").read_text().splitlines() == [
        "| class | images | recall % | precision % |",
        "|---|---:|---:|---:|",
        "| a | 8 | 75.0 | 85.7 |",
        "| b | 5 | 60.0 | 60.0 |",
        "| c | 0 | nan | 0.0 |",
    ]


def test_segmentation_table(tmp_path):
    report.write_segmentation(COUNTS, ["a", "b", "c"], tmp_path)
    assert (tmp_path / "per_class.md").read_text().splitlines() == [
        "| class | IoU % | Acc % | pixels % |",
        "|---|---:|---:|---:|",
        "| a | 66.67 | 75.00 | 61.54 |",
        "| b | 42.86 | 60.00 | 38.46 |",
        "| c | 0.00 | nan | 0.00 |",
        "| **mean (mIoU, mAcc)** | 36.51 | 67.50 | |",
        "| **all pixels (aAcc)** | | 69.23 | 100.00 |",
    ]


def test_confusion_matrix_picture(tmp_path):
    report.write_classification(COUNTS, ["a", "b", "c"], tmp_path)
    picture = np.asarray(Image.open(tmp_path / "confusion_matrix.png").convert("RGB"))
    blue = picture[..., 2].astype(int) - picture[..., 0]
    assert min(picture.shape[:2]) > 200 and (blue > 40).mean() > 0.02


def test_a_thousand_classes_fit_on_a_page(tmp_path):
    names = [f"class {index}" for index in range(1000)]
    report.write_classification(ConfusionMatrix(np.eye(1000, dtype=np.int64)), names, tmp_path)
    assert max(Image.open(tmp_path / "confusion_matrix.png").size) < 1500
    assert len((tmp_path / "per_class.md").read_text().splitlines()) == 1002


def test_contact_sheet_shows_every_image(tmp_path):
    colours = [
        (250, 10, 10),
        (10, 250, 10),
        (10, 10, 250),
        (250, 250, 10),
        (10, 250, 250),
        (250, 10, 250),
        (99, 50, 7),
    ]
    images = [np.full((20, 20, 3), colour, np.uint8) for colour in colours]
    report.draw_contact_sheet(images, [str(colour) for colour in colours], tmp_path / "sheet.png")
    picture = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).astype(int)
    areas = [(np.abs(picture - colour).max(-1) < 12).sum() for colour in colours]
    assert min(areas) > 1000
    assert max(areas) < 1.1 * min(areas)
    assert picture.shape[1] > 2 * picture.shape[0]  # Six columns, two rows.
