"""Crops that the device resizes, against the host's crops of the same boxes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from seaformer_jax.data.classification import augment
from seaformer_jax.data.on_device.crop import resize_crops

SIDE, HEIGHT, WIDTH = 24, 40, 54
# Smaller and larger than the result, of one pixel, and filling the window.
SIZES = [(40, 54), (24, 24), (7, 9), (40, 13), (1, 1), (33, 50)]
_resize = jax.jit(resize_crops, static_argnums=5)


@pytest.fixture(scope="module")
def windows():
    """Photo-like crops, each in the corner of a window of noise; uint8 [6, H, W, 3]."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (len(SIZES), HEIGHT, WIDTH, 3)).astype(np.uint8)
    for window, (height, width) in zip(noise, SIZES, strict=True):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 11, 3)).astype(np.uint8))
        window[:height, :width] = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    return noise


@pytest.mark.parametrize("cubic", [False, True])
@pytest.mark.parametrize("upright", [False, True])
@pytest.mark.parametrize("mirrored", [False, True])
def test_crops_are_resized_as_by_pillow(windows, cubic, upright, mirrored):
    flags = (jnp.full(len(SIZES), flag) for flag in (upright, mirrored, cubic))
    found = _resize(windows, jnp.array(SIZES), *flags, SIDE)
    assert found.shape == (len(SIZES), SIDE, SIDE, 3) and found.dtype == jnp.uint8
    for window, (height, width), result in zip(windows, SIZES, np.asarray(found).astype(int), strict=True):
        filters = augment.RESAMPLING["bicubic" if cubic else "bilinear"]
        crop = Image.fromarray(np.ascontiguousarray(window[:height, :width]))
        # Along the rows of the window first, then along its columns. Pillow chooses the order by the size.
        expected = crop.resize((SIDE, height), filters).resize((SIDE, SIDE), filters)
        at_once = crop.resize((SIDE, SIDE), filters)
        if upright:
            expected, at_once = (image.transpose(Image.Transpose.TRANSPOSE) for image in (expected, at_once))
        turn = -1 if mirrored else 1
        assert np.abs(result - np.asarray(expected)[:, ::turn]).max() <= 1
        assert np.abs(result - np.asarray(at_once)[:, ::turn]).mean() < 0.3


def test_every_crop_has_its_own_flags(windows):
    flags = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 0, 1]], bool).T
    found = _resize(windows, jnp.array(SIZES), *flags, SIDE)
    for i, size in enumerate(SIZES):
        alone = _resize(windows[[i]], jnp.array([size]), *flags[:, [i]], SIDE)
        assert np.abs(np.asarray(found[i]).astype(int) - alone[0]).max() <= 1  # Products round differently.
