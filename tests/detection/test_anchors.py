import numpy as np
import pytest

from seaformer_jax.detection import anchors
from tests import golden


@pytest.mark.parametrize("size", [(96, 160), (224, 288)])
def test_anchors_equal_mmdetection(size):
    expected = golden.load(f"anchors_{size[0]}x{size[1]}", "detection")
    np.testing.assert_array_equal(anchors.level_sizes(*size), expected["feature_sizes"])
    np.testing.assert_array_equal(anchors.level_counts(*size), expected["num_per_level"])
    np.testing.assert_allclose(anchors.anchors(*size), expected["anchors"], rtol=0, atol=1e-5)


def test_the_number_of_anchors_is_that_of_the_model_at_odd_sizes():
    assert anchors.level_sizes(800, 1333) == ((100, 167), (50, 84), (25, 42), (13, 21), (7, 11))
    assert sum(anchors.level_counts(800, 1344)) == 201_600 == len(anchors.anchors(800, 1344))


def test_corners_are_the_centres_of_the_anchors():
    boxes = anchors.anchors(61, 93, 2.0)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    np.testing.assert_allclose(anchors.corners(61, 93)[:, ::-1], centres, atol=1e-4)


def test_the_scale_is_the_side_of_the_first_square():
    square = anchors.anchors(32, 32, 2.0)[3]  # Ratio 1 is the second, with its smallest size first.
    np.testing.assert_allclose(square, (-8, -8, 8, 8))


def test_ratios_are_height_over_width_and_the_wide_ones_come_first():
    sizes = np.ptp(
        anchors.anchors(32, 32).reshape(-1, 9, 2, 2)[0], axis=1
    )  # (width, height) of a cell's anchors.
    np.testing.assert_allclose(sizes[:, 1] / sizes[:, 0], np.repeat([0.5, 1, 2], 3), rtol=1e-6)
    np.testing.assert_allclose(sizes.prod(1), 32**2 * np.tile([1, 4 ** (1 / 3), 4 ** (2 / 3)], 3), rtol=1e-6)
