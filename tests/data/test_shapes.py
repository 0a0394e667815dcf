"""Shapes: the annotations agree with each other and with the image; the images are reproducible."""

import pickle

import numpy as np
import pytest

from seaformer_jax import errors
from seaformer_jax.data import shapes


def _pixels(box) -> tuple[slice, slice]:
    x0, y0, x1, y1 = box.astype(int)
    return np.s_[y0:y1, x0:x1]


@pytest.fixture(scope="module")
def rendered():
    data = shapes.Shapes("train", 300)
    return [data.render(i) for i in range(300)]


def test_source_interface():
    data = shapes.Shapes("val", 3, image_size=64)
    assert len(data) == 3
    assert data.labels.class_names == (
        *("circle", "square", "triangle", "star", "ring", "cross", "diamond", "hexagon"),
    )
    elements = list(data)  # The iteration ends with an IndexError.
    assert len(elements) == 3
    for element, whole in zip(elements, map(data.render, range(3)), strict=True):
        assert set(element) == {"image", "label"}
        assert type(element["label"]) is int
        assert element["image"].shape == (64, 64, 3) and element["image"].dtype == np.uint8
        np.testing.assert_array_equal(element["image"], whole["image"])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(data))[1]["image"], elements[1]["image"])


def test_boxes_and_mask_agree(rendered):
    """Each box fits the pixels of its object tightly; outside all boxes the mask is ground."""
    for element in rendered:
        rest = element["mask"].copy()
        for box, label in zip(element["boxes"], element["box_labels"], strict=True):
            inside = element["mask"][_pixels(box)] == label + 1
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()
            rest[_pixels(box)][inside] = 0
        assert not rest.any()
        assert element["mask"].dtype == np.uint8 and element["boxes"].dtype == np.float32


def test_label_is_the_largest_object(rendered):
    for element in rendered:
        objects = zip(element["boxes"], element["box_labels"], strict=True)
        areas = [(element["mask"][_pixels(box)] == label + 1).sum() for box, label in objects]
        assert element["label"] == element["box_labels"][0]
        assert areas[0] > 1.2 * max(areas[1:], default=0)


def test_objects_are_whole(rendered):
    """A disc fills pi / 4 of its box, a ring 1 - 0.56^2 of that; an object that is cut off fills more."""
    for element in rendered:
        share = {"circle": 1, "ring": 1 - 0.56**2}.get(shapes.CLASS_NAMES[element["label"]])
        width, height = element["boxes"][0, 2:] - element["boxes"][0, :2]
        area = (element["mask"] == element["label"] + 1)[_pixels(element["boxes"][0])].sum()
        if share:
            assert abs(width - height) <= 1
            assert area / (width * height) == pytest.approx(share * np.pi / 4, rel=0.06)


def test_mask_follows_the_image(rendered):
    """Object and ground differ in mean colour; with a shifted or transposed mask they would differ less."""
    distances = []
    for element in rendered:
        image = element["image"] / 255
        inside = element["mask"] == element["label"] + 1
        distances.append(np.linalg.norm(image[inside].mean(0) - image[element["mask"] == 0].mean(0)))
    assert np.min(distances) > 0.2
    assert np.mean(distances) > 0.6


def test_variety(rendered):
    labels = [element["label"] for element in rendered]
    assert np.bincount(labels, minlength=8).min() > 15
    assert {len(element["boxes"]) for element in rendered} == {1, 2, 3}
    sides = np.array([np.max(e["boxes"][0, 2:] - e["boxes"][0, :2]) for e in rendered]) / 96
    assert sides.min() < 0.4 and 0.75 < sides.max() <= 0.82
    centres = np.array([e["boxes"][0, :2] + e["boxes"][0, 2:] for e in rendered]) / 192
    assert (centres.min(0) < 0.25).all() and (centres.max(0) > 0.75).all()


# Each outline's share of the circumscribed disc, by elementary geometry.
AREAS = {
    "circle": 1.0,
    "square": 2 / np.pi,
    "triangle": 0.75 * 3**0.5 / np.pi,
    "star": 10 * 0.5 * 0.42 * np.sin(np.pi / 5) / np.pi,
    "ring": 1 - 0.56**2,
    "cross": (2 * 1.9 * 0.62 - 0.62**2) / np.pi,
    "diamond": 2 * 0.55 / np.pi,
    "hexagon": 1.5 * 3**0.5 / np.pi,
}


@pytest.mark.parametrize("name", shapes.CLASS_NAMES)
def test_outlines(name):
    """The area and the circumradius are right, and the slope is that of a distance: 1 almost everywhere."""
    grid = np.linspace(-1.1, 1.1, 1101)
    distance = shapes._OUTLINES[name](grid[None, :], grid[:, None])
    inside = distance < 0
    cell = (grid[1] - grid[0]) ** 2
    assert inside.sum() * cell / np.pi == pytest.approx(AREAS[name], rel=0.01)
    radius = np.hypot(grid[None, :], grid[:, None])[inside].max()
    assert radius == pytest.approx(1, abs=0.01)
    slope = np.hypot(*np.gradient(distance, grid[1] - grid[0]))
    assert np.median(slope) == pytest.approx(1, abs=1e-3)


def test_streams():
    """The same (split, seed, index) gives the same image for any size of the split; other keys give other images."""
    base = shapes.Shapes("train", 10)
    np.testing.assert_array_equal(base[3]["image"], shapes.Shapes("train", 4)[3]["image"])
    others = [shapes.Shapes("val", 10), shapes.Shapes("train", 10, seed=1), shapes.Shapes("val", 10, seed=1)]
    seen = {data[i]["image"].tobytes() for data in (base, *others) for i in range(10)}
    assert len(seen) == 40


@pytest.mark.parametrize(("image_size", "count"), [(32, 1000), (33, 30), (224, 30)])
def test_sizes(image_size, count):
    data = shapes.Shapes("train", count, image_size)
    for i in range(count):
        element = data.render(i)
        assert element["image"].shape == (image_size, image_size, 3)
        assert (element["boxes"][:, 2:] > element["boxes"][:, :2]).all()


def test_errors():
    with pytest.raises(errors.UserError, match="'test'; expected one of train, val"):
        shapes.Shapes("test", 10)
    with pytest.raises(errors.UserError, match="at least 1 image of at least 32 pixels"):
        shapes.Shapes("train", 0)
    with pytest.raises(IndexError):
        shapes.Shapes("train", 10)[10]
