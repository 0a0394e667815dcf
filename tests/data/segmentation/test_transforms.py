"""The training and validation transforms: order, sizes, distributions, alignment of image and mask."""

import pickle

import cv2
import numpy as np
import pytest

from seaformer_jax.data.segmentation.transforms import SegmentationEvalTransform, SegmentationTrainTransform

DATA = {"base_scale": (64, 32), "crop_size": (24, 40)}
PLAIN = {"scale_range": (0.5, 2.0), "cat_max_ratio": 1.0, "flip": 0.0, "photometric": False}
OFFICIAL = PLAIN | {"cat_max_ratio": 0.75, "flip": 0.5, "photometric": True}


def element(height: int, width: int) -> dict:
    """The image's red gives the column, its green the row; the label is 10 times the quarter (0..3) of the column."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(20, 250, width)
    image[..., 1] = np.linspace(20, 250, height)[:, None]
    label = np.broadcast_to(np.arange(width) * 4 // width * 10, (height, width)).astype(np.uint8)
    return {"image": image, "label": label, "skipped": 0}


def train(seed: int, height=30, width=70, data=None, **changes) -> dict:
    transform = SegmentationTrainTransform(DATA | (data or {}), OFFICIAL | changes)
    return transform.random_map(element(height, width), np.random.default_rng(seed))


def test_elements():
    transform = pickle.loads(pickle.dumps(SegmentationTrainTransform(DATA, OFFICIAL)))
    source = element(30, 70)
    before = source["image"].copy(), source["label"].copy()
    found = transform.random_map(source, np.random.default_rng(5))
    assert found["image"].shape == (24, 40, 3) and found["image"].dtype == np.uint8
    assert found["label"].shape == (24, 40) and found["label"].dtype == np.uint8
    assert found["size"].shape == (2,) and found["size"].dtype == np.int32
    assert found["skipped"] == 0
    assert (source["image"] == before[0]).all() and (source["label"] == before[1]).all()
    again = train(5)
    assert all(np.array_equal(found[name], again[name]) for name in found)


def test_scales_are_uniform():
    """A crop larger than any image shows the size after scaling: (27.4, 64) times 0.5 to 2."""
    plain = PLAIN | {"cat_max_ratio": 0.75}
    sizes = [train(seed, data={"crop_size": (100, 200)}, **plain)["size"] for seed in range(300)]
    heights, widths = np.array(sizes).T
    assert np.abs(heights - widths * 30 / 70).max() <= 1
    assert widths.min() in range(32, 35) and widths.max() in range(124, 129)
    assert abs(widths.mean() - 1.25 * 64) < 5
    assert np.histogram(widths, 3, (32, 128))[0].min() > 75


def test_the_longer_side_of_the_scale_may_bound():
    found = train(0, 10, 100, {"crop_size": (100, 200)}, scale_range=(1, 1))
    assert found["size"].tolist() == [6, 64]


def test_padding():
    """Padding is below and on the right; the image is black there and the label is ignored."""
    for seed in range(20):
        found = train(seed, scale_range=(0.5, 0.8), photometric=False)
        height, width = found["size"]
        assert height < 24
        assert not found["image"][height:].any() and not found["image"][:, width:].any()
        assert (found["label"][height:] == 255).all() and (found["label"][:, width:] == 255).all()
        assert (found["label"][:height, :width] != 255).all()
        assert found["image"][:height, :width].any(-1).all()


@pytest.mark.parametrize("seed", range(10))
def test_image_and_label_stay_together(seed):
    """The red of a pixel gives its column, and so its label; nearest and bilinear resizing differ at edges."""
    found = train(seed, 30, 80, photometric=False)
    height, width = found["size"]
    red = found["image"][:height, :width, 0].astype(float)
    expected = np.clip((red - 20) / 230 * 80 // 20, 0, 3) * 10
    assert (found["label"][:height, :width] == expected).mean() > 0.9


def test_flips():
    flipped = []
    for seed in range(200):
        found = train(seed, photometric=False)
        height, width = found["size"]
        ends = found["image"][0, [0, width - 1], 0].astype(int)
        flipped.append(ends[0] > ends[1])
        # Images are never flipped upside down.
        assert found["image"][0, 0, 1] < found["image"][height - 1, 0, 1]
    assert abs(np.mean(flipped) - 0.5) < 0.15


def test_without_scale_crop_and_chance_nothing_happens():
    source = element(32, 64)
    transform = SegmentationTrainTransform(DATA | {"crop_size": (32, 64)}, PLAIN | {"scale_range": (1, 1)})
    found = transform.random_map(source, np.random.default_rng(0))
    assert (found["image"] == source["image"]).all() and (found["label"] == source["label"]).all()


def test_distortion_comes_after_the_crop():
    """The geometry is the same with and without distortion, because distortion draws last."""
    plain, colourful = (train(3, photometric=photometric) for photometric in (False, True))
    assert (plain["label"] == colourful["label"]).all() and (plain["size"] == colourful["size"]).all()
    assert (plain["image"] != colourful["image"]).any()


EVAL = {"scale": (64, 32), "size_divisor": 0, "scales": (1.0,)}


def evaluate(height: int, width: int, **changes) -> dict:
    return SegmentationEvalTransform(EVAL | changes).map(element(height, width))


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def test_evaluation_keeps_the_ratio_and_the_label():
    source = element(50, 60)
    found = evaluate(50, 60)
    # The exact width is 38.4.
    np.testing.assert_array_equal(found["image"], resized(source["image"], 32, 38))
    np.testing.assert_array_equal(found["label"], source["label"])
    assert set(found) == {"image", "label", "skipped"}


def test_evaluation_at_multiples_resizes_twice():
    source = element(50, 60)
    found = evaluate(50, 60, size_divisor=16)["image"]
    np.testing.assert_array_equal(found, resized(resized(source["image"], 32, 38), 32, 48))
    assert (found != resized(source["image"], 32, 48)).any()


def test_evaluation_at_several_scales():
    """The scales are multiplied by the factors and rounded down: (64, 32) becomes (96, 48) and (42, 21)."""
    source = element(50, 60)
    found = evaluate(50, 60, scales=(1.0, 1.5, 0.67))
    for name, size in (("image", (32, 38)), ("image_1", (48, 58)), ("image_2", (21, 25))):
        np.testing.assert_array_equal(found[name], resized(source["image"], *size))


@pytest.mark.parametrize("divisor", [0, 32])
def test_input_sizes(divisor):
    transform = SegmentationEvalTransform(EVAL | {"size_divisor": divisor, "scales": (1.0, 0.5, 1.75)})
    rng = np.random.default_rng(0)
    for height, width in rng.integers(1, 150, (30, 2)).tolist():
        found = transform.map(element(height, width))
        sizes = [found[name].shape[:2] for name in ("image", "image_1", "image_2")]
        assert transform.input_sizes(height, width) == tuple(sizes)
        assert not divisor or not any(side % 32 for size in sizes for side in size)


def test_ade20k_sizes():
    transform = SegmentationEvalTransform({"scale": (2048, 512), "size_divisor": 32, "scales": (1.0,)})
    assert transform.input_sizes(512, 683) == ((512, 704),)
    assert transform.input_sizes(683, 512) == ((704, 512),)
    assert transform.input_sizes(256, 256) == ((512, 512),)
