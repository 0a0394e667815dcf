"""`argmax_upsample`: the labels equal those of PyTorch's resize and argmax at every pixel."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from convert.labels import class_map

FORMS = {"kernel": class_map.argmax_upsample, "numpy": class_map.numpy_argmax_upsample}
SHAPES = [
    ((8, 8), (64, 64)),
    ((7, 11), (50, 83)),  # The factor is not a whole number.
    ((5, 3), (5, 3)),
    ((9, 6), (4, 5)),  # The image is smaller than the logits.
    ((1, 1), (13, 7)),
    ((1, 9), (40, 72)),
]


def expected(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    resized = F.interpolate(
        torch.from_numpy(logits).permute(2, 0, 1)[None], size, mode="bilinear", align_corners=False
    )
    return resized[0].numpy().argmax(0)  # NumPy's argmax takes the lowest class of a tie.


def smooth(rng: np.random.Generator, h: int, w: int, classes: int) -> np.ndarray:
    y, x = np.mgrid[0:h, 0:w] / 8
    phase = rng.uniform(0, 6.3, (2, classes))
    waves = np.sin(y[..., None] + phase[0]) + np.cos(x[..., None] + phase[1])
    return (3 * waves).astype(np.float32)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("cells", "size"), SHAPES)
@pytest.mark.parametrize("classes", [1, 2, 19, 150, 256])
def test_noise_and_smooth_maps(form, cells, size, classes):
    rng = np.random.default_rng(classes)
    noise = rng.standard_normal((*cells, classes)).astype(np.float32)
    for logits in (noise, smooth(rng, *cells, classes)):
        np.testing.assert_array_equal(FORMS[form](logits, size), expected(logits, size))


def test_more_classes_than_a_byte_can_name():
    logits = np.random.default_rng(0).standard_normal((7, 11, 300)).astype(np.float32)
    labels = class_map.argmax_upsample(logits, (50, 83))
    np.testing.assert_array_equal(labels, expected(logits, (50, 83)))
    assert labels.dtype == np.uint16 and labels.max() > 255


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("cells", "size"), SHAPES)
def test_lowest_of_equals(form, cells, size):
    rng = np.random.default_rng(0)
    assert not FORMS[form](np.full((*cells, 5), 0.25, np.float32), size).any()
    # Class 7 - k is a copy of class k, so the two are equal at every pixel.
    tied = rng.integers(0, 3, (*cells, 4)).astype(np.float32)
    tied = np.concatenate([tied, tied[..., ::-1]], axis=-1)
    np.testing.assert_array_equal(FORMS[form](tied, size), expected(tied, size))


@pytest.mark.parametrize("form", FORMS)
def test_near_ties(form):
    """Rounding lifts some pixels of a class above its corners, so that it wins or ties with the class above it."""
    size, lifted = (50, 83), 0
    for value in np.random.default_rng(0).uniform(1, 2, 20).astype(np.float32):
        logits = np.empty((7, 11, 2), np.float32)
        logits[:] = np.nextafter(value, np.float32(0)), value
        labels = expected(logits, size)
        lifted += (labels == 0).sum()
        np.testing.assert_array_equal(FORMS[form](logits, size), labels)
    assert lifted > 100


@pytest.mark.parametrize("form", FORMS)
def test_large_map(form):
    logits = smooth(np.random.default_rng(3), 25, 33, 150)
    np.testing.assert_array_equal(FORMS[form](logits, (200, 264)), expected(logits, (200, 264)))


@pytest.mark.parametrize(
    ("shape", "size"), [((4, 4), (8, 8)), ((4, 4, 0), (8, 8)), ((4, 4, 3), (0, 8)), ((0, 4, 3), (8, 8))]
)
def test_shapes_that_cannot_be(shape, size):
    with pytest.raises(ValueError, match="expected \\[h, w, C\\] with at least one class"):
        class_map.argmax_upsample(np.zeros(shape, np.float32), size)
