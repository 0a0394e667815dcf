"""Images and boxes through the transforms, against mmdetection's and by hand."""

import numpy as np
import pytest

from seaformer_jax import config
from seaformer_jax.data.detection import augment, transforms
from seaformer_jax.data.on_device.normalize import normalize, zero_padding
from seaformer_jax.data.segmentation.augment import rescaled_size
from seaformer_jax.errors import UserError
from tests import golden

DATA = {"scale": (96, 64), "buckets": ((64, 96), (96, 64)), "max_boxes": 4}
PLAIN = {"scale_range": (1.0, 1.0), "flip": 0.0, "flip_vertical": 0.0, "photometric": False}


def element(height=40, width=60, boxes=((10, 5, 30, 20), (0, 0, 60, 40))) -> dict:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    labels = np.arange(len(boxes), dtype=np.int32)
    return {"image": image, "boxes": np.float32(boxes), "labels": labels, "index": np.int32(3), "skipped": 0}


def transformed(seed=0, data=None, **changes) -> dict:
    transform = transforms.DetectionTrainTransform(DATA | (data or {}), PLAIN | changes)
    return transform.random_map(element(), np.random.default_rng(seed))


def test_sizes_equal_mmdetection():
    for long, short, w, h, new_w, new_h, padded_w, padded_h in golden.load("preprocess", "detection")[
        "size_table"
    ]:
        assert rescaled_size(h, w, (long, short)) == (new_h, new_w)
        transform = transforms.DetectionEvalTransform({"scale": (long, short), "pad_multiple": 32})
        assert transform.padded_size(h, w) == (padded_h, padded_w)


def test_pixels_and_boxes_equal_mmdetection():
    case = golden.load("preprocess", "detection")
    scale = tuple(case["scale"].tolist())
    image, boxes = augment.resize(case["image_rgb"], case["boxes"], scale)
    assert np.abs(image.astype(int) - case["resized"]).max() <= 1
    np.testing.assert_allclose(boxes, case["boxes_resized"], atol=1e-3)
    np.testing.assert_allclose(augment.flip(image, boxes)[1], case["boxes_flipped"], atol=1e-3)
    transform = transforms.DetectionEvalTransform({"scale": scale, "pad_multiple": 32})
    found = transform.map({"image": case["image_rgb"]})
    np.testing.assert_allclose(found["scale"][::-1], case["scale_factor"], rtol=1e-6)
    normal = normalize(found["image"][None], config.IMAGENET_MEAN, config.IMAGENET_STD)
    np.testing.assert_allclose(
        zero_padding(normal, found["size"][None])[0], case["normalised_padded"], atol=1e-5
    )


def test_training_elements_are_padded():
    found = transformed()
    assert found["image"].shape == (64, 96, 3) and found["size"].tolist() == [64, 96]
    np.testing.assert_allclose(
        found["boxes"], np.float32([[16, 8, 48, 32], [0, 0, 96, 64], [0] * 4, [0] * 4])
    )
    assert found["labels"].tolist() == [0, 1, -1, -1]


def test_smaller_images_are_padded_on_the_right_and_at_the_bottom():
    found = transformed(scale_range=(0.5, 0.5))
    assert (
        found["size"].tolist() == [32, 48]
        and not found["image"][32:].any()
        and not found["image"][:, 48:].any()
    )
    np.testing.assert_allclose(found["boxes"][0], [8, 4, 24, 16])


def test_larger_images_are_cropped_with_their_boxes():
    """The box follows its pixels: a bright patch on black stays inside it."""
    image = np.zeros((40, 60, 3), np.uint8)
    image[10:20, 20:30] = 255
    example = element() | {"image": image, "boxes": np.float32([[20, 10, 30, 20]]), "labels": np.int32([0])}
    transform = transforms.DetectionTrainTransform(
        DATA, PLAIN | {"scale_range": (1.5, 1.5), "flip": 0.5, "flip_vertical": 0.5}
    )
    seen = 0
    for seed in range(20):
        found = transform.random_map(example, np.random.default_rng(seed))
        assert found["image"].shape == (64, 96, 3)
        if found["labels"][0] < 0:
            continue
        rows, columns = np.nonzero(found["image"][..., 0] > 127)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(found["boxes"][0], box, atol=1)
        seen += 1
    assert seen > 10


def test_boxes_of_which_a_crop_leaves_little_are_dropped():
    image, boxes = np.zeros((64, 200, 3), np.uint8), np.float32([[0, 0, 40, 40], [150, 0, 190, 40]])
    for seed in range(20):
        window, moved, kept = augment.random_crop(image, boxes, (64, 96), np.random.default_rng(seed))
        widths = moved[:, 2] - moved[:, 0]
        assert window.shape == (64, 96, 3) and kept.tolist() == (widths >= 10).tolist()


def test_flips_are_their_own_inverse():
    image, boxes = element()["image"], element()["boxes"]
    for flip in (augment.flip, augment.flip_vertically):
        there = flip(image, boxes)
        assert not np.array_equal(there[1], boxes)
        for found, expected in zip(flip(*there), (image, boxes), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_the_smallest_bucket_that_fits_is_taken():
    buckets = ((64, 96), (96, 64), (96, 96))
    assert [transforms.bucket_of(size, (96, 64), buckets) for size in ((40, 60), (60, 40))] == [0, 1]
    with pytest.raises(UserError, match="none holds an image of 64 x 96 pixels"):
        transforms.bucket_of((40, 60), (96, 64), ((96, 64),))


def test_the_generator_decides():
    changes = {"scale_range": (0.5, 2.0), "flip": 0.5, "flip_vertical": 0.5, "photometric": True}
    first, again, other = (transformed(seed, **changes) for seed in (1, 1, 2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["image"], other["image"])
