"""RandAugment: operations against NumPy, levels against timm's level functions, draws against distributions."""

import pickle

import numpy as np
import pytest
from PIL import Image

from seaformer_jax.data.classification import randaugment
from seaformer_jax.data.classification.randaugment import OPS, Op, RandAugment, Warp
from seaformer_jax.errors import UserError

FILL = (124, 116, 104)
BILINEAR = Warp(Image.Resampling.BILINEAR, FILL)


@pytest.fixture
def image():
    """A smooth image with noise, uint8 [48, 40, 3], without the values 0 and 255."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:48, :40]
    waves = np.stack([np.sin(x / 5), np.cos(y / 7), np.sin((x + y) / 9)], axis=-1)
    return (110 + 70 * waves + rng.integers(0, 40, waves.shape)).astype(np.uint8)


def _apply(name, image, argument=None, warp=BILINEAR):
    return np.asarray(OPS[name].apply(Image.fromarray(image), argument, warp))


def _blend(degenerate, image, factor):
    mixed = degenerate + np.float32(factor) * (image.astype(np.float32) - degenerate)
    return np.clip(np.trunc(mixed), 0, 255).astype(np.uint8)


def _luma(image):
    # ITU-R 601 in 16-bit fixed point.
    return ((image @ np.array([19595, 38470, 7471]) + 0x8000) >> 16).astype(np.float32)


def test_tables_of_values(image):
    np.testing.assert_array_equal(_apply("Invert", image), 255 - image)
    for bits, kept in [(0, 0), (1, 0x80), (3, 0xE0), (4, 0xF0), (8, 0xFF)]:
        np.testing.assert_array_equal(_apply("Posterize", image, bits), image & kept)
    for threshold in (0, 100, 256):
        expected = np.where(image < threshold, image, 255 - image)
        np.testing.assert_array_equal(_apply("Solarize", image, threshold), expected)
    expected = np.where(image < 128, np.minimum(image.astype(int) + 110, 255), image)
    np.testing.assert_array_equal(_apply("SolarizeAdd", image, 110), expected)


def test_autocontrast_stretches_each_channel_to_the_full_range(image):
    low, high = image.min((0, 1)).astype(float), image.max((0, 1)).astype(float)
    expected = np.clip(image * (255 / (high - low)) - low * (255 / (high - low)), 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(_apply("AutoContrast", image), expected)
    assert expected.min() == 0 and expected.max() >= 254


def test_equalize_flattens_each_channels_histogram(image):
    expected = np.empty_like(image)
    for channel in range(3):
        counts = np.bincount(image[..., channel].ravel(), minlength=256)
        step = (counts.sum() - counts[counts > 0][-1]) // 255
        below = np.concatenate([[0], np.cumsum(counts)[:-1]])
        expected[..., channel] = np.minimum((below + step // 2) // step, 255)[image[..., channel]]
    np.testing.assert_array_equal(_apply("Equalize", image), expected)


@pytest.mark.parametrize("factor", [0.1, 0.55, 1.0, 1.9])
def test_enhancements_blend_with_a_degenerate_image(image, factor):
    luma = _luma(image)
    np.testing.assert_array_equal(
        _apply("Color", image, factor), _blend(np.repeat(luma[..., None], 3, -1), image, factor)
    )
    mean = np.float32(np.floor(luma.mean(dtype=np.float64) + 0.5))
    np.testing.assert_array_equal(_apply("Contrast", image, factor), _blend(mean, image, factor))
    np.testing.assert_array_equal(_apply("Brightness", image, factor), _blend(np.float32(0), image, factor))


@pytest.mark.parametrize("factor", [0.1, 1.0, 1.9])
def test_sharpness_blends_with_a_smoothed_image(image, factor):
    kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    smooth = image.astype(np.float32)  # Pillow does not smooth the border.
    neighbours = [image[dy : dy + 46, dx : dx + 38] for dy in range(3) for dx in range(3)]
    smooth[1:-1, 1:-1] = np.floor(sum(k * n for k, n in zip(kernel.ravel(), neighbours, strict=True)) + 0.5)
    np.testing.assert_array_equal(_apply("Sharpness", image, factor), _blend(smooth, image, factor))


def _warp(image, matrix):
    """Samples bilinearly at matrix @ (x + 1/2, y + 1/2, 1), pixel by pixel; FILL if that is outside the image."""
    height, width = image.shape[:2]
    result = np.empty(image.shape)
    for y, x in np.ndindex(height, width):
        u, v = np.asarray(matrix).reshape(2, 3) @ (x + 0.5, y + 0.5, 1)
        result[y, x] = _sample(image, v - 0.5, u - 0.5) if 0 <= u < width and 0 <= v < height else FILL
    return result


def _sample(image, v, u):
    top, left = int(np.floor(v)), int(np.floor(u))
    rows = np.clip([top, top + 1], 0, image.shape[0] - 1)
    columns = np.clip([left, left + 1], 0, image.shape[1] - 1)
    weights = np.outer([1 - (v - top), v - top], [1 - (u - left), u - left])
    return np.tensordot(weights, image[np.ix_(rows, columns)], axes=([0, 1], [0, 1]))


def _rotation(degrees, width, height):
    """The matrix from result to source pixels of a counter-clockwise rotation about the centre; y points down."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    cx, cy = width / 2, height / 2
    return (c, -s, cx - c * cx + s * cy, s, c, cy - s * cx - c * cy)


@pytest.mark.parametrize(
    ("name", "argument", "matrix"),
    [
        ("ShearX", 0.27, (1, 0.27, 0, 0, 1, 0)),
        ("ShearY", -0.27, (1, 0, 0, -0.27, 1, 0)),
        ("TranslateXRel", 0.4, (1, 0, 0.4 * 40, 0, 1, 0)),
        ("TranslateYRel", -0.31, (1, 0, 0, 0, 1, -0.31 * 48)),
        ("Rotate", 27.0, _rotation(27.0, 40, 48)),
    ],
)
def test_warps_sample_bilinearly_and_fill(image, name, argument, matrix):
    expected = _warp(image, matrix)
    difference = np.abs(_apply(name, image, argument) - expected)
    assert difference.max() <= 1  # Pillow rounds.
    filled = np.all(expected == FILL, axis=-1)
    assert filled.mean() > 0.05
    assert difference[filled].max() == 0


def test_translation_by_whole_pixels_is_exact(image):
    moved = _apply("TranslateXRel", image, 0.25)
    np.testing.assert_array_equal(moved[:, :30], image[:, 10:])
    np.testing.assert_array_equal(moved[:, 30:], np.broadcast_to(FILL, (48, 10, 3)))


@pytest.mark.parametrize("name", ["ShearX", "ShearY", "TranslateXRel", "TranslateYRel", "Rotate"])
def test_warps_use_the_given_filter(image, name):
    bicubic = Warp(Image.Resampling.BICUBIC, FILL)
    assert np.any(_apply(name, image, 0.26, bicubic) != _apply(name, image, 0.26))


# Arguments at magnitudes 0, 5, 9 and 10, from timm's level functions; 0 if there is no argument.
LEVELS = {
    "Rotate": (0, 15, 27, 30),
    "Posterize": (0, 2, 3, 4),
    "Solarize": (0, 128, 230, 256),
    "SolarizeAdd": (0, 55, 99, 110),
    **dict.fromkeys(["Color", "Contrast", "Brightness", "Sharpness"], (0.1, 1.0, 1.72, 1.9)),
    **dict.fromkeys(["ShearX", "ShearY"], (0, 0.15, 0.27, 0.3)),
    **dict.fromkeys(["TranslateXRel", "TranslateYRel"], (0, 0.225, 0.405, 0.45)),
    **dict.fromkeys(["AutoContrast", "Equalize", "Invert"], (0,) * 4),
}
SIGNED = {"Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"}


@pytest.mark.parametrize("name", OPS)
def test_levels(name):
    rng = np.random.default_rng(0)
    for share, expected in zip((0, 0.5, 0.9, 1), LEVELS[name], strict=True):
        found = [OPS[name].level(share, rng) for _ in range(100)]
        np.testing.assert_allclose(np.abs(found), expected, atol=1e-9)
        negative = np.mean(np.array(found) < 0)
        assert 0.3 < negative < 0.7 if name in SIGNED and share else negative == 0


def test_increasing_levels():
    rng = np.random.default_rng(0)
    assert [OPS["Posterize"].level_increasing(s, rng) for s in (0, 0.5, 0.9, 1)] == [4, 2, 1, 0]
    assert [OPS["Solarize"].level_increasing(s, rng) for s in (0, 0.5, 0.9, 1)] == [256, 128, 26, 0]
    for name in ("Color", "Contrast", "Brightness", "Sharpness"):
        found = {round(OPS[name].level_increasing(0.9, rng), 9) for _ in range(100)}
        assert found == {0.19, 1.81}
        assert min(OPS[name].level_increasing(1.5, rng) for _ in range(100)) == 0.1
    assert OPS["Rotate"].level_increasing is OPS["Rotate"].level


@pytest.fixture
def record(monkeypatch):
    """Replaces every operation by one that only adds (index, share) to the returned list."""
    notes = []

    def noting(index):
        def apply(image, argument, warp):
            notes.append((index, argument))
            return image

        return Op(apply, lambda share, rng: share, lambda share, rng: -share, 0.0)

    monkeypatch.setattr(randaugment, "_OPS", tuple(noting(i) for i in range(len(OPS))))
    return notes


def _run(config, times, seed=0):
    policy, rng = RandAugment.parse(config, FILL), np.random.default_rng(seed)
    for _ in range(times):
        policy(None, rng)


def test_draws_uniformly_and_applies_half(record):
    times = 15000
    _run("rand-m9-mstd0.5", times)
    counts = np.bincount([index for index, _ in record], minlength=15)
    # Two operations per image, each applied with probability 0.5.
    assert abs(len(record) - times) < 4 * np.sqrt(2 * times * 0.25)
    assert np.all(np.abs(counts - times / 15) < 4 * np.sqrt(times / 15))


def test_magnitude_is_normal_and_clipped(record):
    _run("rand-m9-mstd0.5", 15000)
    magnitudes = 10 * np.array([share for _, share in record])
    assert abs(np.median(magnitudes) - 9) < 0.02
    assert abs(np.mean(magnitudes < 8.5) - 0.1587) < 0.012  # One standard deviation below the mean.
    assert abs(np.mean(magnitudes == 10) - 0.0228) < 0.005  # Two standard deviations above the mean: clipped.
    assert magnitudes.max() == 10


@pytest.mark.parametrize(
    ("config", "low", "high"),
    [
        ("rand-m9", 0.9, 0.9),
        ("rand", 1.0, 1.0),
        ("rand-m15-mmax20", 1.5, 1.5),
        ("rand-m9-mstd101", 0.0, 0.9),
        ("rand-m0-mstd1", 0.0, 0.5),
        ("rand-m9-inc1", -0.9, -0.9),
    ],
)
def test_magnitude_bounds(record, config, low, high):
    _run(config, 2000)
    shares = np.array([share for _, share in record])
    assert shares.min() >= low and shares.max() <= high
    if low == 0 and high == 0.9:
        # A uniform share has the standard deviation 0.9 / sqrt(12) = 0.26.
        assert abs(shares.mean() - 0.45) < 0.03 and shares.std() > 0.24


def test_weighted_draws_follow_the_weights_without_replacement(record):
    _run("rand-m9-w0-n1", 12000)
    found = np.bincount([index for index, _ in record], minlength=15) / len(record)
    weights = np.array([op.weight for op in OPS.values()])
    np.testing.assert_allclose(found, weights / weights.sum(), atol=0.03)
    assert found[list(OPS).index("Invert")] == 0
    record.clear()
    policy, rng = RandAugment.parse("rand-w0-n8", FILL), np.random.default_rng(0)
    for _ in range(200):
        record.clear()
        policy(None, rng)
        assert len({index for index, _ in record}) == len(record)


def test_n_operations_are_chained(record):
    _run("rand-n7", 2000)
    assert abs(len(record) / 2000 - 3.5) < 0.15


def test_same_generator_same_image_and_survives_pickling(image):
    policy = RandAugment.parse("rand-m9-n4-mstd0.5", FILL)
    copy = pickle.loads(pickle.dumps(policy))
    for seed in range(30):
        first = np.asarray(policy(Image.fromarray(image), np.random.default_rng(seed)))
        again = np.asarray(copy(Image.fromarray(image), np.random.default_rng(seed)))
        np.testing.assert_array_equal(first, again)
        assert first.shape == image.shape


@pytest.mark.parametrize("config", ["rand-m0", "rand-m10-inc1", "rand-m30-mmax30", "rand-m30-mmax30-inc1"])
def test_every_operation_accepts_every_magnitude(image, config):
    policy, rng = RandAugment.parse(config + "-n15", FILL), np.random.default_rng(0)
    for _ in range(20):
        assert policy(Image.fromarray(image), rng).size == (40, 48)


MALFORMED = """
    augmix-m3 RAND-m9 rand-m9- rand-m rand-m9.5 rand-m-1 rand-mstd rand-m9-x2 rand-n2-n3 rand-inc0 rand-w1
    rand-mmax0 rand-w0-n14 rand-n0 rand-m99-n0 rand-m11 rand-m21-mmax20
"""


@pytest.mark.parametrize("config", ["", *MALFORMED.split()])
def test_malformed_strings_are_refused(config):
    with pytest.raises(UserError, match="RandAugment"):
        RandAugment.parse(config, FILL)
