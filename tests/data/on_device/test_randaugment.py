"""RandAugment in the step against the host's: each operation against Pillow, the draws against the host's draws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from PIL import Image

from seaformer_jax.data.classification import randaugment as host
from seaformer_jax.data.classification.randaugment import OPS, RandAugment, Warp
from seaformer_jax.data.on_device import colour, randaugment, warp
from seaformer_jax.data.on_device.chosen import on_chosen
from seaformer_jax.errors import UserError

FILL = (124, 116, 104)
NAMES = list(OPS)
HEIGHT, WIDTH = 48, 40
ARGUMENTS = {
    "Rotate": (27.0, -30.0, 2.0),
    "Posterize": (0, 3, 8),
    "Solarize": (0, 100, 256),
    "SolarizeAdd": (0, 99, 110),
    **dict.fromkeys(("Color", "Contrast", "Brightness", "Sharpness"), (0.1, 1.0, 1.72)),
    **dict.fromkeys(("ShearX", "ShearY"), (0.27, -0.3)),
    **dict.fromkeys(("TranslateXRel", "TranslateYRel"), (0.405, -0.45, 0.25)),
}
GEOMETRIC = {NAMES[index] for index in warp.WARPS}
CASES = [
    (name, argument, cubic)
    for name in NAMES
    for argument in ARGUMENTS.get(name, (0,))
    for cubic in ((False, True) if name in GEOMETRIC else (False,))
]


@pytest.fixture(scope="module")
def images():
    """Photo-like images, one with noise in every pixel, one of a single colour; uint8 [6, H, W, 3]."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(30, 226, (4, 7, 6, 3)).astype(np.uint8)
    smooth = [Image.fromarray(image).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC) for image in coarse]
    noise = rng.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    return np.stack([*map(np.asarray, smooth), noise, np.full_like(noise, 77)])


def by_pillow(image: np.ndarray, name: str, argument: float, cubic: bool) -> np.ndarray:
    """The host's operation on an array, as numbers that can be subtracted."""
    filters = Image.Resampling.BICUBIC if cubic else Image.Resampling.BILINEAR
    return np.asarray(OPS[name].apply(Image.fromarray(image), argument, Warp(filters, FILL))).astype(int)


@jax.jit
def _warp(images, op, argument, cubic):
    return warp.warp(images, op, argument, cubic, fill=FILL, max_degrees=30)


_recolour, _equalize, _sharpen = map(jax.jit, (colour.recolour, colour.equalize, colour.sharpen))


def on_device(images: np.ndarray, name: str, argument: float, cubic: bool) -> np.ndarray:
    op, value = jnp.full(len(images), NAMES.index(name)), jnp.full(len(images), argument, jnp.float32)
    if name == "Equalize":
        found = _equalize(images)
    elif name == "Sharpness":
        found = _sharpen(images, value)
    elif name in GEOMETRIC:
        found = _warp(images, op, value, jnp.full(len(images), cubic))
    else:
        found = _recolour(images, op, value)
    assert found.dtype == jnp.uint8
    return np.asarray(found).astype(int)


@pytest.mark.parametrize(("name", "argument", "cubic"), [case for case in CASES if case[0] != "Rotate"])
def test_operations_are_pillows(images, name, argument, cubic):
    expected = np.stack([by_pillow(image, name, argument, cubic) for image in images])
    difference = np.abs(on_device(images, name, argument, cubic) - expected)
    assert difference.max() <= 1  # Pillow computes in other precisions before it rounds down.
    assert np.mean(difference > 0) < 0.05


@pytest.mark.parametrize(("name", "argument", "cubic"), [case for case in CASES if case[0] == "Rotate"])
def test_rotation_is_pillows_up_to_resampling(images, name, argument, cubic):
    smooth = images[:4]
    expected = np.stack([by_pillow(image, name, argument, cubic) for image in smooth])
    difference = np.abs(on_device(smooth, name, argument, cubic) - expected)
    # Neighbouring pixels of these images differ by 8 on average.
    assert difference.mean() < 1.3 and np.quantile(difference, 0.99) < 8
    outside = np.all(expected == FILL, axis=-1)
    assert outside.mean() > 0.01
    assert (
        np.mean(np.any(difference[outside] > 0, axis=-1)) < 0.02
    )  # Only where the edge meets a pixel's centre.


def test_every_image_has_its_own_operation(images):
    rng = np.random.default_rng(1)
    names = [name for name in NAMES if name not in GEOMETRIC | {"Equalize", "Sharpness"}]
    chosen = [names[i % len(names)] for i in range(24)]
    arguments = np.array([rng.choice(ARGUMENTS.get(name, (0,))) for name in chosen])
    batch = np.resize(images, (24, HEIGHT, WIDTH, 3))
    found = _recolour(batch, jnp.array([NAMES.index(name) for name in chosen]), jnp.float32(arguments))
    for image, name, argument, result in zip(batch, chosen, arguments, found, strict=True):
        value = int(argument) if argument == int(argument) else argument
        assert np.abs(by_pillow(image, name, value, False) - result).max() <= 1
    untouched = _recolour(batch, jnp.full(24, -1), jnp.float32(arguments))
    np.testing.assert_array_equal(untouched, batch)


def host_draws(config: str, monkeypatch) -> list[tuple[int, float]]:
    """(operation, argument) of what the host applies to 6000 images."""
    notes = []

    def noting(index: int, op: host.Op) -> host.Op:
        return op._replace(apply=lambda image, argument, warp: notes.append((index, argument)))

    monkeypatch.setattr(host, "_OPS", tuple(noting(*pair) for pair in enumerate(OPS.values())))
    policy, rng = RandAugment.parse(config, FILL), np.random.default_rng(0)
    for _ in range(6000):
        policy(None, rng)
    return notes


@pytest.mark.parametrize(
    "config",
    ["rand-m9-mstd0.5", "rand-m9-mstd0.5-inc1", "rand-m7-n3-mstd101", "rand-w0-n2-mstd1", "rand-m15-mmax20"],
)
def test_draws_are_distributed_as_the_hosts(config, monkeypatch):
    notes = np.array(host_draws(config, monkeypatch))
    policy = RandAugment.parse(config, FILL)
    drawn = jax.jit(functools.partial(randaugment.draw, batch=6000, policy=policy))(jax.random.key(0))
    applied = np.asarray(drawn.op) >= 0
    found = np.stack([np.asarray(drawn.op)[applied], np.asarray(drawn.argument)[applied]], axis=1)
    assert abs(applied.mean() - 0.5) < 0.02 and abs(np.mean(np.asarray(drawn.cubic)) - 0.5) < 0.02
    for index in range(len(NAMES)):
        ours, theirs = (draws[draws[:, 0] == index, 1] for draws in (found, notes))
        assert abs(len(ours) - len(theirs)) < 5 * np.sqrt(len(ours) + len(theirs) + 1)
        if len(ours) and len(theirs):
            ours, theirs = ours.round(4), theirs.round(4)
            assert scipy.stats.ks_2samp(ours, theirs).pvalue > 1e-4


def test_weighted_draws_have_no_operation_twice():
    policy = RandAugment.parse("rand-w0-n8", FILL)
    drawn = np.asarray(randaugment.draw(jax.random.key(0), 500, policy).op)
    for column in drawn.T:
        used = column[column >= 0]
        assert len(set(used.tolist())) == len(used)


@pytest.mark.parametrize("name, expected", [("bilinear", 0), ("bicubic", 1)])
def test_a_fixed_filter_is_not_drawn(name, expected):
    policy = RandAugment.parse("rand-m9", FILL, name)
    assert np.all(np.asarray(randaugment.draw(jax.random.key(0), 50, policy).cubic) == expected)


@pytest.mark.parametrize("batch", [1, 40])
def test_a_batch_gets_its_drawn_operations_one_after_another(images, batch):
    policy = RandAugment.parse("rand-m9-mstd0.5-n3", FILL)
    batch, key = np.resize(images[:4], (batch, HEIGHT, WIDTH, 3)), jax.random.key(5)
    found = np.asarray(jax.jit(functools.partial(randaugment.rand_augment, policy=policy))(batch, key))
    drawn = randaugment.draw(key, len(batch), policy)
    rotated = differing = 0
    for i, image in enumerate(batch):
        for op, argument, cubic in zip(*(np.asarray(column)[:, i] for column in drawn), strict=True):
            if op < 0:
                continue
            level = OPS[NAMES[op]].level
            image = by_pillow(image, NAMES[op], int(argument) if level.whole else argument, cubic).astype(
                np.uint8
            )
            rotated += NAMES[op] == "Rotate"
        differing += np.mean(np.abs(image.astype(int) - found[i]) > 1) > 0.02
    # After a rotation, many pixels differ by 2; and a difference of 1 can become a large one, e.g. by "Posterize".
    assert differing <= rotated + len(batch) // 10


def test_flips_mirror_left_to_right(images):
    mirrored = np.array([True, False, True, False, False, True])
    found = randaugment.flip(images, jnp.array(mirrored))
    np.testing.assert_array_equal(
        found, [image[:, ::-1] if m else image for image, m in zip(images, mirrored, strict=True)]
    )


@pytest.mark.parametrize("batch", [1, 5, 16, 37])
@pytest.mark.parametrize("share", [0, 0.3, 1])
def test_only_chosen_images_change(batch, share):
    rng = np.random.default_rng(batch)
    images = rng.integers(0, 256, (batch, 2, 3, 3)).astype(np.uint8)
    chosen, added = rng.random(batch) < share, rng.integers(0, 9, batch).astype(np.uint8)
    found = jax.jit(functools.partial(on_chosen, lambda x, y: x + y[:, None, None, None]))(
        images, jnp.array(chosen), jnp.array(added)
    )
    np.testing.assert_array_equal(
        found, images + np.where(chosen, added, 0).astype(np.uint8)[:, None, None, None]
    )


def test_the_forms_for_tpus_equal_the_others():
    rng = np.random.default_rng(0)
    values, table = rng.integers(0, 256, 3000), rng.integers(0, 256, 256)
    np.testing.assert_array_equal(colour.below_by_comparing(values), colour.below_by_counting(values))
    np.testing.assert_array_equal(colour.below_by_comparing(values), [np.sum(values < k) for k in range(256)])
    np.testing.assert_array_equal(colour.look_up_by_comparing(values, table), table[values])
    images = rng.integers(0, 256, (2, 7, 11, 3)).astype(np.uint8)
    for axis, shape in ((2, (2, 7, 1, 1)), (1, (2, 1, 11, 1))):
        shift = rng.integers(-30, 30, shape)
        expected = np.stack(
            [
                np.stack([np.roll(np.take(images[b], [line], 2 - axis), -shift[b].ravel()[line], axis - 1)
                          .take(0, 2 - axis) for line in range(images.shape[3 - axis])], 2 - axis)
                for b in range(2)
            ]
        )  # fmt: skip
        np.testing.assert_array_equal(warp.roll_by_selecting(images, jnp.array(shift), axis), expected)
        np.testing.assert_array_equal(warp.roll_by_gathering(images, jnp.array(shift), axis), expected)


def test_rotations_of_half_a_turn_are_refused():
    policy = RandAugment.parse("rand-m9-mmax60", FILL)
    with pytest.raises(UserError, match="rotates by up to 180 degrees"):
        randaugment.rand_augment(jnp.zeros((1, 8, 8, 3), jnp.uint8), jax.random.key(0), policy)
