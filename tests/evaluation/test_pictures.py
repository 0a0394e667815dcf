"""Pictures of class maps and heat maps."""

import matplotlib
import numpy as np
from PIL import Image

from seaformer_jax.evaluation import pictures

PALETTE = ((255, 0, 0), (0, 0, 200), (10, 20, 30))


def test_overlay_blends_half_and_leaves_ignored_pixels():
    image = np.full((2, 2, 3), 100, np.uint8)
    blended = pictures.overlay(image, np.array([[0, 1], [2, 255]], np.uint8), PALETTE)
    assert blended.tolist() == [[[178, 50, 50], [50, 50, 150]], [[55, 60, 65], [100, 100, 100]]]


def test_mask_keeps_classes_and_colours(tmp_path):
    classes = np.array([[0, 1], [2, 1]], np.uint8)
    pictures.save_mask(classes, PALETTE, tmp_path / "mask.png")
    mask = Image.open(tmp_path / "mask.png")
    assert mask.mode == "P"
    assert np.array_equal(np.asarray(mask), classes)
    assert np.array_equal(np.asarray(mask.convert("RGB")), np.array(PALETTE)[classes])


def test_heat_is_scaled_upsampled_and_coloured():
    heat = np.array([[-3.0, 1.0]])
    blended = pictures.heat_overlay(np.zeros((4, 40, 3), np.uint8), heat)
    assert blended.shape == (4, 40, 3)
    ends = [np.array(matplotlib.colormaps["jet"](value, bytes=True)[:3]) / 2 for value in (0, 255)]
    assert np.abs(blended[0, 0] - ends[0]).max() <= 1 and np.abs(blended[0, -1] - ends[1]).max() <= 1
    red = blended[0, :, 0].astype(int)
    assert red[5] < red[25]  # The heat is interpolated between the two ends.


def test_heat_without_differences():
    assert pictures.heat_overlay(np.zeros((4, 4, 3), np.uint8), np.ones((1, 1))).shape == (4, 4, 3)


def test_legend_has_a_line_per_class(tmp_path):
    pictures.save_legend(
        [("road", (255, 0, 0)), ("a rather long name", (0, 0, 200))], tmp_path / "legend.png"
    )
    legend = np.asarray(Image.open(tmp_path / "legend.png"))
    rows = [np.flatnonzero((legend == colour).all(-1).any(1)) for colour in ((255, 0, 0), (0, 0, 200))]
    assert rows[0].max() < rows[1].min()
    assert min(map(len, rows)) > 10
    dark = (legend < 80).all(-1)
    assert (
        dark[rows[1].min() : rows[1].max(), 60:].sum() > dark[rows[0].min() : rows[0].max(), 60:].sum() > 20
    )


def test_legend_of_nothing(tmp_path):
    pictures.save_legend([], tmp_path / "legend.png")
    assert Image.open(tmp_path / "legend.png").size[1] > 0
