"""Crops, flips and the whole transforms, against Pillow calls, torch's resize and distributions."""

import pickle

import grain
import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image

from seaformer_jax import config
from seaformer_jax.data.classification import augment
from seaformer_jax.data.classification.transforms import EvalTransform, TrainTransform
from seaformer_jax.errors import UserError

MEAN = (0.485, 0.456, 0.406)


def _photo(height, width, seed=0):
    """A smooth random image, uint8 [height, width, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def _gradient(height, width):
    """An image uint8 [height, width, 3] whose red grows with x and whose green grows with y, up to 200."""
    y, x = np.mgrid[:height, :width]
    return np.stack([200 * x / width, 200 * y / height, 0 * x], axis=-1).round().astype(np.uint8)


def _torch_resize(image, size, mode):
    """torch's antialiased resize of uint8 [H, W, 3] to `size` (height, width), in float64 and clipped."""
    x = torch.from_numpy(image.astype(np.float64)).permute(2, 0, 1)[None]
    y = torch.nn.functional.interpolate(x, size, mode=mode, align_corners=False, antialias=True)
    return y[0].permute(1, 2, 0).clamp(0, 255).numpy()


def _boxes(height, width, times, **kwargs):
    rng = np.random.default_rng(0)
    bounds = {"scale": (0.08, 1.0), "ratio": (3 / 4, 4 / 3)} | kwargs
    return np.array([augment.random_crop_box(height, width, rng, **bounds) for _ in range(times)]).T


def test_crop_area_ratio_and_position_are_distributed_as_stated():
    top, left, h, w = _boxes(2000, 2000, 4000, scale=(0.1, 0.4))  # Every draw fits.
    area = scipy.stats.uniform(0.1, 0.3)
    assert scipy.stats.kstest(h * w / 2000**2, area.cdf).pvalue > 0.01
    log_ratio = scipy.stats.uniform(np.log(3 / 4), np.log(16 / 9))
    assert scipy.stats.kstest(np.log(w / h), log_ratio.cdf).pvalue > 0.01
    for corner, side in ((top, h), (left, w)):
        assert scipy.stats.kstest((corner + 0.5) / (2001 - side), scipy.stats.uniform.cdf).pvalue > 0.01


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 375), (100, 600), (3, 3), (1, 1), (1, 50)])
def test_crop_stays_inside(height, width):
    top, left, h, w = _boxes(height, width, 2000)
    assert np.all((top >= 0) & (left >= 0) & (h > 0) & (w > 0))
    assert np.all((top + h <= height) & (left + w <= width))
    if min(height, width) < 10:
        return
    fits = h * w / (height * width)
    # The bounds leave room for rounding to whole pixels.
    assert fits.min() > 0.075 and np.all((w / h > 0.72) & (w / h < 1.39))
    assert np.any(top + h == height) and np.any(top == 0)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(100, 1000, (0, 433, 100, 133)), (1000, 100, (433, 0, 133, 100)), (90, 100, (0, 0, 90, 100))],
)
def test_crop_falls_back_to_the_centre(height, width, expected):
    scale = (1.2, 1.3)  # Larger than the image: no draw fits.
    boxes = _boxes(height, width, 5, scale=scale)
    assert {tuple(box) for box in boxes.T.tolist()} == {expected}


class _FixedBox:
    """A generator that returns given draws."""

    def __init__(self, uniforms, integers):
        self.uniform = lambda low, high: low + (high - low) * uniforms.pop(0)
        self.integers = lambda high: integers.pop(0)


def test_a_draw_that_does_not_fit_is_drawn_again():
    # Of 400 x 100 pixels, the first draw (area 0.9, ratio 1) is 190 x 190 and does not fit. The second (0.25, 1) is
    # 100 x 100 and fills the shorter side.
    rng = _FixedBox([0.9, 0.5, 0.25, 0.5], [0, 37])
    assert augment.random_crop_box(100, 400, rng, (0, 1), (1 / 2, 2)) == (0, 37, 100, 100)
    rng = _FixedBox([0.9, 0.5, 0.25, 0.5], [37, 0])
    assert augment.random_crop_box(400, 100, rng, (0, 1), (1 / 2, 2)) == (37, 0, 100, 100)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resized_crop_is_torchs_antialiased_resize_of_the_box(interpolation):
    image = _photo(150, 200)
    for seed in range(10):
        top, left, h, w = augment.random_crop_box(
            150, 200, np.random.default_rng(seed), (0.08, 1), (3 / 4, 4 / 3)
        )
        crop = image[top : top + h, left : left + w]
        rng = np.random.default_rng(seed)
        found = augment.random_resized_crop(image, rng, 64, interpolation=interpolation)
        assert found.size == (64, 64) and found.mode == "RGB"
        assert np.abs(np.asarray(found) - _torch_resize(crop, (64, 64), interpolation)).max() < 1.6


def test_random_interpolation_is_either_filter_half_of_the_time():
    rng = np.random.default_rng(0)
    drawn = [augment.resampling("random", rng) for _ in range(2000)]
    assert set(drawn) == {Image.Resampling.BILINEAR, Image.Resampling.BICUBIC}
    assert abs(drawn.count(Image.Resampling.BICUBIC) - 1000) < 100


def test_flip_mirrors_left_to_right_with_its_probability():
    image = _gradient(4, 6)
    rng = np.random.default_rng(0)
    mirrored = 0
    for _ in range(2000):
        found = np.asarray(augment.flip(Image.fromarray(image), rng, 0.3))
        is_mirrored = np.array_equal(found, image[:, ::-1])
        assert is_mirrored or np.array_equal(found, image)
        mirrored += is_mirrored
    assert abs(mirrored - 600) < 90


@pytest.mark.parametrize(
    ("height", "width", "resized", "corner"),
    [
        (375, 500, (341, 256), (58, 16)),  # (341 - 224) / 2 = 58.5 rounds to even.
        (500, 375, (256, 341), (16, 58)),
        (500, 300, (256, 426), (16, 101)),  # 426.7 is truncated.
        (100, 100, (256, 256), (16, 16)),
        (120, 600, (1280, 256), (528, 16)),
    ],
)
def test_evaluation_crop_is_the_hand_made_pillow_call(height, width, resized, corner):
    image = _photo(height, width)
    whole = Image.fromarray(image).resize(resized, Image.Resampling.BICUBIC)
    left, top = corner
    expected = np.asarray(whole)[top : top + 224, left : left + 224]
    np.testing.assert_array_equal(augment.resize_and_center_crop(image, 224, 0.875, "bicubic"), expected)


def test_evaluation_crop_agrees_with_torch():
    image = _photo(375, 500)
    expected = _torch_resize(image, (256, 341), "bicubic")[16:240, 58:282]
    assert np.abs(augment.resize_and_center_crop(image, 224) - expected).max() < 1.6


@pytest.mark.parametrize(("height", "width"), [(300, 450), (450, 300)])
def test_evaluation_crop_shows_the_middle(height, width):
    crop = augment.resize_and_center_crop(_gradient(height, width), 100, 0.8).astype(float)
    short = 0.8 * 300
    spans = crop[50, [0, -1], 0] * width / 200, crop[[0, -1], 50, 1] * height / 200
    for (first, last), side in zip(spans, (width, height), strict=True):
        assert abs((first + last) / 2 - side / 2) < 2.5 and abs(last - first - short) < 5


def _element(seed=0):
    return {"image": _photo(120, 160, seed), "label": 3, "skipped": np.int64(7), "extra": "kept"}


def _train(**changes):
    record = config.default().augment
    record.update(changes)
    return TrainTransform(64, record, MEAN)


def test_train_transform_replaces_image_and_label_alone():
    element = _element()
    before = element["image"].copy()
    found = _train().random_map(element, np.random.default_rng(0))
    assert found["image"].shape == (64, 64, 3) and found["image"].dtype == np.uint8
    assert found["label"] == 3 and found["label"].dtype == np.int32
    assert found["extra"] == "kept" and found["skipped"] is element["skipped"]
    np.testing.assert_array_equal(element["image"], before)


def test_train_transform_without_randaugment_is_crop_then_flip():
    element = _element()
    transform = _train(rand_augment="", crop_scale=(0.3, 0.5), interpolation="bicubic", flip=1.0)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        crop = augment.random_resized_crop(element["image"], rng, 64, (0.3, 0.5), interpolation="bicubic")
        found = transform.random_map(element, np.random.default_rng(seed))["image"]
        np.testing.assert_array_equal(found, np.asarray(crop)[:, ::-1])


def test_train_transform_augments_after_the_flip_and_fills_with_the_mean():
    # All operations at magnitude 10, on a black image: only a geometric one can bring in the fill colour.
    transform = _train(rand_augment="rand-m10", interpolation="bilinear")
    black = {"image": np.zeros((80, 80, 3), np.uint8), "label": 0}
    colours = set()
    for seed in range(60):
        found = transform.random_map(black, np.random.default_rng(seed))["image"]
        colours |= {tuple(pixel) for pixel in found.reshape(-1, 3).tolist()}
    assert (124, 116, 104) in colours  # round(255 * mean)


def test_train_transform_depends_on_the_generator_alone_and_survives_pickling():
    transform = _train()
    copy = pickle.loads(pickle.dumps(transform))
    images = []
    for seed in range(10):
        found = transform.random_map(_element(), np.random.default_rng(seed))["image"]
        np.testing.assert_array_equal(
            found, copy.random_map(_element(), np.random.default_rng(seed))["image"]
        )
        images.append(found)
    assert len({image.tobytes() for image in images}) == 10


def test_transforms_run_in_a_grain_chain():
    dataset = grain.MapDataset.source([_element(s) for s in range(4)]).seed(1)
    trained = [element["image"] for element in dataset.random_map(_train())]
    again = [element["image"] for element in dataset.random_map(_train())]
    np.testing.assert_array_equal(trained, again)
    evaluated = dataset.map(EvalTransform(64))
    assert [element["image"].shape for element in evaluated] == [(64, 64, 3)] * 4


def test_eval_transform_replaces_image_and_label_alone():
    element = _element()
    found = pickle.loads(pickle.dumps(EvalTransform(64, 0.9, "bilinear"))).map(element)
    expected = augment.resize_and_center_crop(element["image"], 64, 0.9, "bilinear")
    np.testing.assert_array_equal(found["image"], expected)
    assert found["label"].dtype == np.int32 and found["extra"] == "kept" and found["skipped"] == 7


def test_unusable_settings_are_refused():
    with pytest.raises(UserError, match="Did you mean 'bicubic'"):
        _train(interpolation="bicubik")
    with pytest.raises(UserError, match="Unknown interpolation 'random'"):
        EvalTransform(64, interpolation="random")
    with pytest.raises(UserError, match="RandAugment"):
        _train(rand_augment="rand-z3")


@pytest.mark.parametrize("transform", [_train(), EvalTransform(64)])
def test_pillow_images_and_arrays_are_transformed_alike(transform):
    array, pillow = _element(), _element() | {"image": Image.fromarray(_photo(120, 160))}
    for seed in range(10):
        dataset = (grain.MapDataset.source([element]).seed(seed) for element in (array, pillow))
        found, again = (next(iter(elements.apply([transform])))["image"] for elements in dataset)
        assert type(found) is type(again) is np.ndarray
        np.testing.assert_array_equal(found, again)
