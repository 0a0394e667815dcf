"""Augmentation of a batch, against slow plain versions with the same draws and against its distributions."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from seaformer_jax.data.on_device import erase as erasing
from seaformer_jax.data.on_device import mix as mixing
from seaformer_jax.data.on_device.normalize import normalize, smooth_one_hot
from seaformer_jax.errors import UserError
from tests import forked

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _images(batch, height=8, width=10, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (batch, height, width, 3)).astype(np.uint8)


GROUP = 4
PARTNER = np.arange(4000) // GROUP * GROUP + GROUP - 1 - np.arange(4000) % GROUP


def _mix(images, *, mixup=0.0, cutmix=0.0):
    """Mixes images whose class is their place in the group; also returns each image's lambda.

    So the target of an image is lambda at its own place and 1 - lambda at its partner's place.
    """
    own = np.eye(GROUP, dtype=np.float32)[np.arange(len(images)) % GROUP]
    mix = jax.jit(functools.partial(mixing.mix, mixup=mixup, cutmix=cutmix, group=GROUP))
    mixed, targets = (np.asarray(x) for x in mix(images, own, jax.random.key(0)))
    return mixed, targets, np.sum(targets * own, axis=1)


@pytest.fixture(scope="module")
def mixup():
    images = _images(4000)
    return images, *_mix(images, mixup=0.2)


@pytest.fixture(scope="module")
def cutmix():
    images = _images(4000)
    return images, *_mix(images, cutmix=1.0)


def test_normalize():
    images = _images(2)
    expected = (images.astype(np.float64) / 255 - MEAN) / STD
    found = np.asarray(normalize(images, MEAN, STD))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=2e-6)
    np.testing.assert_array_equal(normalize(images.astype(np.float32), MEAN, STD), found)
    half = normalize(images, MEAN, STD, jnp.bfloat16)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_array_equal(half, jnp.asarray(found, jnp.bfloat16))


def test_smooth_one_hot():
    found = smooth_one_hot(jnp.array([2, 0]), 4, 0.1)
    np.testing.assert_allclose(found, [[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]], atol=1e-7)
    np.testing.assert_array_equal(smooth_one_hot(jnp.array([1]), 3, 0.0), [[0, 1, 0]])


def test_mix_without_alphas_returns_its_arguments():
    images, targets = jnp.asarray(_images(5)), jnp.eye(5)
    found = mixing.mix(images, targets, jax.random.key(0), mixup=0.0, cutmix=0.0, group=4)
    assert found[0] is images and found[1] is targets


def test_mixup_blends_with_the_reversed_group_and_rounds(mixup):
    images, mixed, targets, lam = mixup
    shares = lam[:, None, None, None].astype(np.float64)
    exact = shares * images + (1 - shares) * images[PARTNER]
    assert np.abs(mixed - exact).max() < 0.5 + 1e-4
    assert mixed.dtype == np.uint8
    own = np.eye(GROUP)[np.arange(4000) % GROUP]
    np.testing.assert_allclose(targets, lam[:, None] * own + (1 - lam[:, None]) * own[PARTNER], atol=1e-6)


def test_mixup_lambda_is_beta_and_one_per_group(mixup):
    lam = mixup[-1].reshape(-1, GROUP)
    assert np.ptp(lam, axis=1).max() == 0
    assert np.all((lam >= 0) & (lam <= 1))
    assert scipy.stats.kstest(lam[:, 0], scipy.stats.beta(0.2, 0.2).cdf).pvalue > 0.01


def _inside(box, height, width):
    top, left, bottom, right = (int(side) for side in box)
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = True
    return mask


def test_cutmix_pastes_one_box_per_group_and_counts_its_pixels(cutmix):
    images, mixed, targets, lam = cutmix
    pasted = np.any(mixed != images, axis=-1).reshape(-1, GROUP, 8, 10).any(axis=1)
    for mask in pasted[pasted.any((1, 2))]:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = _inside((rows[0], columns[0], rows[-1] + 1, columns[-1] + 1), 8, 10)
        np.testing.assert_array_equal(mask, box)
    where = np.repeat(pasted, GROUP, axis=0)
    np.testing.assert_array_equal(mixed, np.where(where[..., None], images[PARTNER], images))
    np.testing.assert_allclose(lam, 1 - where.mean((1, 2)), atol=1e-6)
    np.testing.assert_allclose(targets[np.arange(4000), PARTNER % GROUP], 1 - lam, atol=1e-6)
    np.testing.assert_allclose(targets.sum(1), 1, atol=1e-6)


def _timm_box(lam, cy, cx, height, width):
    """timm's rand_bbox in plain Python, for a given centre pixel."""
    cut_h, cut_w = int(height * math.sqrt(1 - lam)), int(width * math.sqrt(1 - lam))
    rows = [min(max(cy + side * (cut_h // 2), 0), height) for side in (-1, 1)]
    columns = [min(max(cx + side * (cut_w // 2), 0), width) for side in (-1, 1)]
    return [rows[0], columns[0], rows[1], columns[1]]


def test_cutmix_box_is_timms():
    rng = np.random.default_rng(0)
    box = jax.jit(mixing.cutmix_box, static_argnums=(2, 3))
    for _ in range(200):
        lam, cy, cx = rng.random(), rng.integers(16), rng.integers(25)
        centre = np.array([(cy + 0.5) / 16, (cx + 0.5) / 25], np.float32)
        np.testing.assert_array_equal(box(np.float32(lam), centre, 16, 25), _timm_box(lam, cy, cx, 16, 25))
    assert box(jnp.float32(0), jnp.array([0.5, 0.5]), 16, 24).tolist() == [0, 0, 16, 24]


def test_cutmix_lambda_is_distributed_as_in_a_plain_version(cutmix):
    rng = np.random.default_rng(0)
    plain = []
    for share in rng.beta(1.0, 1.0, 4000):
        top, left, bottom, right = _timm_box(share, rng.integers(8), rng.integers(10), 8, 10)
        plain.append(80 - (bottom - top) * (right - left))
    kept = np.rint(80 * cutmix[-1][::GROUP])
    gaps = [abs(np.mean(kept <= pixels) - np.mean(np.array(plain) <= pixels)) for pixels in range(81)]
    assert max(gaps) < 1.63 * math.sqrt(1 / 1000 + 1 / 4000)  # Kolmogorov-Smirnov at 1 %.


def test_both_alphas_take_either_half_of_the_time():
    # From images of 0 and 255, mixup makes values in between and CutMix does not. Alpha 9 keeps lambda away from
    # 0 and 1.
    images = np.zeros((4000, 8, 8, 3), np.uint8)
    images[::2] = 255
    mixed = _mix(images, mixup=9.0, cutmix=9.0)[0]
    is_mixup = np.any((mixed > 0) & (mixed < 255), axis=(1, 2, 3)).reshape(-1, GROUP)
    np.testing.assert_array_equal(is_mixup.all(1), is_mixup.any(1))
    assert abs(is_mixup.mean() - 0.5) < 0.06


def test_a_small_batch_is_one_group_and_an_uneven_one_is_refused():
    assert len(set(_mix(_images(2), mixup=1.0)[2].tolist())) == 1
    with pytest.raises(UserError, match=r"batch of 6 images .* groups of 4"):
        _mix(_images(6), mixup=1.0)


def _plain_erasing_box(shape, position, height, width):
    """timm's loop over attempts in plain Python, with the given draws."""
    for u, v in shape:
        area = (0.02 + u * (1 / 3 - 0.02)) * height * width
        aspect = math.exp(math.log(0.3) + v * (math.log(1 / 0.3) - math.log(0.3)))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if w < width and h < height:
            top, left = (
                math.floor(p * n) for p, n in zip(position, (height - h + 1, width - w + 1), strict=True)
            )
            return [top, left, top + h, left + w]
    return None


@pytest.mark.parametrize(("height", "width"), [(20, 30), (64, 64), (12, 60)])
def test_erasing_box_is_the_first_that_fits(height, width):
    rng = np.random.default_rng(0)
    box = jax.jit(erasing.erasing_box, static_argnums=(2, 3))
    later = 0
    for _ in range(200):
        shape, position = rng.random((10, 2)).astype(np.float32), rng.random(2).astype(np.float32)
        expected = _plain_erasing_box(shape, position, height, width)
        assert box(shape, position, height, width).tolist() == expected
        later += _plain_erasing_box(shape[:1], position, height, width) is None
    assert later > 20 or height > 12  # In the flat image (12 x 60), many first draws do not fit.


def test_erasing_box_is_empty_where_none_fits():
    top, left, bottom, right = erasing.erasing_box(jnp.full((10, 2), 0.5), jnp.array([0.3, 0.6]), 1, 50)
    assert top == bottom and left == right


def test_erasing_replaces_one_box_by_standard_normal_noise():
    images = np.full((400, 24, 32, 3), 1000, np.float32)
    found = np.asarray(jax.jit(erasing.random_erasing, static_argnums=2)(images, jax.random.key(0), 0.3))
    erased = np.all(found != 1000, axis=-1)
    np.testing.assert_array_equal(erased, np.any(found != 1000, axis=-1))
    noise = found[erased].ravel()
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02
    assert scipy.stats.kstest(noise[:5000], "norm").pvalue > 0.01
    # Every pixel and channel of every image has its own draw.
    assert len(np.unique(noise)) > 0.9 * len(noise)
    assert abs(erased.any((1, 2)).mean() - 0.3) < 0.07
    areas = erased.mean((1, 2))[erased.any((1, 2))]
    for mask in erased[erased.any((1, 2))]:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert mask.sum() == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    assert areas.min() > 0.012 and areas.max() < 0.36 and abs(areas.mean() - 0.17) < 0.03


def test_erasing_keeps_the_type_and_is_off_at_probability_0():
    images = jnp.zeros((4, 8, 8, 3), jnp.bfloat16)
    assert erasing.random_erasing(images, jax.random.key(0), 0.0) is images
    erase = functools.partial(erasing.random_erasing, probability=0.5)
    assert jax.eval_shape(erase, images, jax.random.key(0)).dtype == jnp.bfloat16


def test_erasing_draws_ten_boxes(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        erasing, "erasing_box", lambda shape, *_: drawn.append(shape.shape) or jnp.zeros(4, jnp.int32)
    )
    erase = functools.partial(erasing.random_erasing, probability=0.5)
    jax.eval_shape(erase, jnp.zeros((2, 4, 4, 3)), jax.random.key(0))
    assert drawn == [(10, 2)]


def test_the_key_alone_decides_on_any_sharding():
    done = forked.run("tests.data.on_device.sharded", devices=4)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["devices"] == [1, 4] and found["rows"] == 8
    assert found["again"] == 0
    assert found["another_key"] > 0.1
    assert found["sharded"] < 1e-6
