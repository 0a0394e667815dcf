"""Buckets: few programs for many sizes, little padding, and the same result as without them."""

import itertools
import re

import numpy as np
import pytest
from absl import logging

from seaformer_jax.data.segmentation import buckets
from seaformer_jax.data.segmentation.buckets import LIMIT, Buckets
from seaformer_jax.data.segmentation.transforms import SegmentationEvalTransform


def transform(scale=(2048, 512), divisor=0, scales=(1.0,)) -> SegmentationEvalTransform:
    return SegmentationEvalTransform({"scale": scale, "size_divisor": divisor, "scales": scales})


def photos(count: int, largest: int, seed: int = 0) -> list[tuple[int, int]]:
    """Sizes like those of a data set of photos: one side is `largest` in most, the other one varies."""
    rng = np.random.default_rng(seed)
    short = (largest * rng.choice([1, 0.75, 0.67, 0.66, 0.5], count) - rng.integers(0, 12, count)).astype(int)
    return [
        (largest, int(s)) if tall else (int(s), largest)
        for s, tall in zip(short, rng.random(count) < 0.3, strict=True)
    ]


# Like Pascal VOC, ADE20K and photos of phones.
FOLDERS = {
    "voc": photos(500, 500),
    "ade20k": photos(300, 683, 1) + photos(50, 2000, 2),
    "phone": photos(90, 4032, 3),
}


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize(
    "settings", [{}, {"divisor": 32}, {"scale": (520, 520)}, {"scales": (0.5, 1.0, 1.75)}]
)
def test_few_programs_and_little_padding(name, settings):
    sizes, of = FOLDERS[name], transform(**settings)
    made = Buckets(sizes, of)
    shapes = [made.shapes_of(size) for size in sizes]
    assert len(shapes) == len(sizes) and len(set(shapes)) <= LIMIT
    exact = 0
    for (height, width), (inputs, label) in zip(sizes, shapes, strict=True):
        needs = [*of.input_sizes(height, width), (height, width)]
        assert all(
            n <= side
            for need, shape in zip(needs, (*inputs, label), strict=True)
            for n, side in zip(need, shape, strict=True)
        )
        assert label[0] % 128 == label[1] % 128 == 0
        exact += sum(h * w for h, w in needs)
    padded = sum(h * w for inputs, label in shapes for h, w in (*inputs, label))
    assert padded < 1.6 * exact


def test_few_shapes_stay_as_they_are():
    sizes = [(360, 480), (375, 500), (500, 375)]
    made = Buckets(sizes, transform())
    assert [made.shapes_of(size) for size in sizes] == [
        (transform().input_sizes(*size), tuple(-(-side // 128) * 128 for side in size)) for size in sizes
    ]


def test_merging_adds_the_least_padding(monkeypatch):
    """Against all ways to merge six shapes into two: greedy is the best one here."""
    sides = np.array(
        [
            [10, 10, 10, 10],
            [11, 10, 11, 10],
            [10, 12, 10, 12],
            [50, 50, 50, 50],
            [52, 50, 52, 50],
            [9, 9, 9, 9],
        ]
    )
    images = np.array([3, 1, 2, 5, 1, 4])
    monkeypatch.setattr(buckets, "LIMIT", 2)

    def pixels(merged) -> int:
        return ((merged[:, 0] * merged[:, 1] + merged[:, 2] * merged[:, 3]) * images).sum()

    def in_two(part) -> np.ndarray:
        merged = sides.copy()
        for members in (part, ~part):
            merged[members] = sides[members].max(0)
        return merged

    parts = [np.array(bits, bool) for bits in itertools.product((0, 1), repeat=6) if 0 < sum(bits) < 6]
    merged = buckets._merge(sides, images)
    assert pixels(merged) == min(pixels(in_two(part)) for part in parts)
    assert (merged >= sides).all() and len(np.unique(merged, axis=0)) == 2


def test_an_element_is_padded_and_knows_its_size():
    sizes = photos(50, 500)
    shapes = Buckets(sizes, transform(scale=(96, 64), scales=(1.0, 0.5)))
    (height, width), (inputs, label) = sizes[7], shapes.shapes_of(sizes[7])
    rng = np.random.default_rng(0)
    element = {
        "image": rng.integers(1, 256, (height, width, 3)).astype(np.uint8),
        "label": rng.integers(0, 9, (height, width)).astype(np.uint8),
    }
    found = shapes.make(element, (inputs, label))
    alone = transform(scale=(96, 64), scales=(1.0, 0.5)).map(element)
    for name, size, shape in (("image", "size", inputs[0]), ("image_1", "size_1", inputs[1])):
        h, w = found[size]
        assert found[name].shape == (*shape, 3) and np.array_equal(found[name][:h, :w], alone[name])
        assert not found[name][h:].any() and not found[name][:, w:].any()
    assert found["label"].shape == label and found["label_size"].tolist() == [height, width]
    assert np.array_equal(found["label"][:height, :width], element["label"])
    assert (found["label"][height:] == 255).all() and (found["label"][:, width:] == 255).all()


def test_the_log_says_how_many_programs(monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "info", lambda text, *args: lines.append(text % args))
    Buckets(FOLDERS["voc"], transform())
    assert re.fullmatch(r"500 images of \d+ shapes need 8 programs; \d+ % of their pixels is padding", *lines)


def test_a_model_that_does_not_know_of_padding_gets_none():
    made, of = Buckets(FOLDERS["voc"], transform(), merge=False), transform()
    assert all(made.shapes_of(size)[0] == of.input_sizes(*size) for size in FOLDERS["voc"])
