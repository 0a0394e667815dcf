"""Geometry and colour, against slow versions written from mmseg's description and hand-computed cases."""

import cv2
import numpy as np
import pytest

from seaformer_jax.data.segmentation import augment as ops


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((512, 683), (2048, 512), (512, 683)),
        ((300, 400), (2048, 512), (512, 683)),  # 400 * 512 / 300 = 682.67
        ((400, 300), (2048, 512), (683, 512)),
        ((300, 400), (512, 2048), (512, 683)),
        ((100, 2000), (2048, 512), (102, 2048)),  # The long side is the bound: 102.4
        ((1024, 2048), (1024, 512), (512, 1024)),
        ((333, 500), (520, 520), (346, 520)),  # 346.32
        ((3, 400), (40, 40), (1, 40)),
    ],
)
def test_rescaled_size(size, scale, expected):
    assert ops.rescaled_size(*size, scale) == expected


def bilinear(image: np.ndarray, size) -> np.ndarray:
    """The weighted mean of the four neighbours, also when shrinking: no antialiasing."""
    result = image.astype(np.float64)
    for axis, length in enumerate(size):
        source = image.shape[axis]
        position = np.clip((np.arange(length) + 0.5) * source / length - 0.5, 0, source - 1)
        low = np.minimum(position.astype(int), max(source - 2, 0))
        high = np.minimum(low + 1, source - 1)
        weight = (position - low).reshape([-1 if a == axis else 1 for a in range(3)])
        result = result.take(low, axis) * (1 - weight) + result.take(high, axis) * weight
    return result


@pytest.mark.parametrize("size", [(37, 53), (20, 30), (74, 106), (13, 90), (37, 20)])
def test_resize_image(size):
    image = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
    assert np.abs(ops.resize_image(image, size) - bilinear(image, size)).max() <= 1


@pytest.mark.parametrize("size", [(37, 53), (20, 30), (74, 106), (13, 90), (37, 20)])
def test_resize_label(size):
    label = np.random.default_rng(0).integers(0, 256, (37, 53), np.uint8)
    rows, columns = ([i * old // new for i in range(new)] for old, new in zip(label.shape, size, strict=True))
    assert (ops.resize_label(label, size) == [[label[y, x] for x in columns] for y in rows]).all()


def slow_corner(label, crop, cat_max_ratio, rng) -> tuple[int, int]:
    """The loop of mmseg's RandomCrop, with np.unique."""

    def draw():
        return [rng.integers(max(side - c, 0) + 1) for side, c in zip(label.shape, crop, strict=True)]

    top, left = draw()
    for _ in range(10 if cat_max_ratio < 1 else 0):
        values, counts = np.unique(label[top : top + crop[0], left : left + crop[1]], return_counts=True)
        counts = counts[values != 255]
        if len(counts) > 1 and counts.max() / counts.sum() < cat_max_ratio:
            break
        top, left = draw()
    return int(top), int(left)


@pytest.mark.parametrize("cat_max_ratio", [0.4, 0.75, 1.0])
def test_random_crop_corner(cat_max_ratio):
    rng = np.random.default_rng(0)
    for seed in range(200):
        label = np.full((rng.integers(5, 30), rng.integers(5, 30)), 255, np.uint8)
        for _ in range(rng.integers(4)):  # Up to three patches; all other pixels are ignored.
            y, x = rng.integers(0, label.shape[0]), rng.integers(0, label.shape[1])
            label[y:, x : x + 9] = rng.integers(3)
        ours, theirs = np.random.default_rng(seed), np.random.default_rng(seed)
        crop = (11, 8)
        assert ops.random_crop_corner(label, crop, cat_max_ratio, ours) == slow_corner(
            label, crop, cat_max_ratio, theirs
        )
        assert ours.bit_generator.state == theirs.bit_generator.state


def test_crops_are_uniform():
    label = np.arange(20, dtype=np.uint8).reshape(4, 5)
    rng = np.random.default_rng(0)
    corners = [ops.random_crop_corner(label, (3, 3), 1.0, rng) for _ in range(1200)]
    counts = [corners.count((y, x)) for y in range(2) for x in range(3)]
    # 200 are expected of each; the bounds are 4 standard deviations away.
    assert sum(counts) == 1200 and min(counts) > 150 and max(counts) < 250


def test_crops_of_one_class_are_drawn_again():
    """Only one crop of fifteen holds both classes: eleven draws find it in 53 of 100 images."""
    label = np.zeros((4, 30), np.uint8)
    label[:, 29:] = 1
    rng = np.random.default_rng(0)
    found = [ops.random_crop_corner(label, (4, 16), 0.95, rng)[1] == 14 for _ in range(1000)]
    assert abs(np.mean(found) - (1 - (14 / 15) ** 11)) < 0.06


def test_pad_and_cut():
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert ops.pad(array, (3, 5), 255).tolist() == [[0, 1, 2, 255, 255], [3, 4, 5, 255, 255], [255] * 5]
    assert ops.pad(np.ones((1, 1, 3), np.uint8), (2, 1), 0).tolist() == [[[1, 1, 1]], [[0, 0, 0]]]
    assert ops.cut(array, (1, 1), (5, 1)).tolist() == [[4]]


def slow_distortion(image: np.ndarray, rng) -> np.ndarray:
    """The distortion step by step, in BGR as in the original, without tables."""

    def change(values, alpha=1, beta=0):
        return np.clip(values.astype(np.float32) * np.float32(alpha) + np.float32(beta), 0, 255).astype(
            np.uint8
        )

    bgr = np.ascontiguousarray(image[..., ::-1])
    if rng.integers(2):
        bgr = change(bgr, beta=rng.uniform(-32, 32))
    first = rng.integers(2)
    if first and rng.integers(2):
        bgr = change(bgr, rng.uniform(0.5, 1.5))
    if rng.integers(2):
        hsv = cv2.cvtColor(bgr, cv2.COLOR_BGR2HSV)
        hsv[..., 1] = change(hsv[..., 1], rng.uniform(0.5, 1.5))
        bgr = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    if rng.integers(2):
        hsv = cv2.cvtColor(bgr, cv2.COLOR_BGR2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + rng.integers(-18, 18)) % 180
        bgr = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    if not first and rng.integers(2):
        bgr = change(bgr, rng.uniform(0.5, 1.5))
    return bgr[..., ::-1]


def test_photometric_distortion():
    image = np.random.default_rng(0).integers(0, 256, (24, 31, 3), np.uint8)
    before = image.copy()
    for seed in range(100):
        found = ops.photometric_distortion(image, np.random.default_rng(seed))
        assert (found == slow_distortion(image, np.random.default_rng(seed))).all()
    assert (image == before).all()


def test_distortions_are_applied_half_of_the_time():
    """A grey image has no saturation and no hue: only brightness and contrast change it, three times in four."""
    rng = np.random.default_rng(0)
    grey = np.full((2, 2, 3), 100, np.uint8)
    values = np.array([ops.photometric_distortion(grey, rng)[0, 0] for _ in range(2000)])
    assert (values == values[:, :1]).all()
    assert abs((values[:, 0] == 100).mean() - 0.25) < 0.05  # Some changes also round to 100.
    assert values.min() < 50 and values.max() > 180
    red = np.full((2, 2, 3), [200, 100, 100], np.uint8)
    changed = np.array([ops.photometric_distortion(red, rng)[0, 0] for _ in range(2000)], int)
    hue_changed = changed[:, 1] != changed[:, 2]
    assert abs(hue_changed.mean() - 0.5 * 35 / 36) < 0.06
    more_blue = (changed[:, 2] > changed[:, 1]).sum() / hue_changed.sum()
    assert abs(more_blue - 18 / 35) < 0.06  # 18 shifts go down (-18 .. -1), 17 go up (1 .. 17).
