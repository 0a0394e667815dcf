"""Schedules against plain Python loops of the formulas of timm and mmcv, and against optax."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seaformer_jax import config
from seaformer_jax.training import schedules

STEPS_PER_EPOCH = 1251


def record(**changes):
    c = config.default().optim.schedule
    c.update({"warmup_steps": 0, **changes})
    return c


def rates(schedule, steps):
    return np.asarray(schedule(jnp.asarray(steps)))


def timm_step_rate(epoch, lr, warmup, init):
    if epoch < warmup:
        return init + epoch * (lr - init) / warmup
    return lr * 0.973 ** (epoch // 2.4)


@pytest.mark.parametrize("warmup", [0, 10, 40])
@pytest.mark.parametrize("steps_per_epoch", [STEPS_PER_EPOCH, 312, 19])
def test_step_held_for_epochs_follows_timm(warmup, steps_per_epoch):
    c = record(
        name="step",
        warmup_steps=warmup * steps_per_epoch,
        decay_steps=2.4 * steps_per_epoch,
        hold_steps=steps_per_epoch,
    )
    schedule = schedules.create(c, 0.064, 601 * steps_per_epoch)
    epochs = np.arange(601)
    expected = [timm_step_rate(epoch, 0.064, warmup, 1e-6) for epoch in range(601)]
    np.testing.assert_allclose(rates(schedule, epochs * steps_per_epoch), expected, rtol=1e-6)
    np.testing.assert_allclose(rates(schedule, (epochs + 1) * steps_per_epoch - 1), expected, rtol=1e-6)


@pytest.mark.parametrize("epochs", ["2.4", "0.1"])
def test_step_by_step_falls_at_the_exact_boundaries(epochs):
    period = Fraction(epochs) * STEPS_PER_EPOCH
    c = record(name="step", decay_steps=float(epochs) * STEPS_PER_EPOCH)
    schedule = schedules.create(c, 1.0, 750_600)
    for k in range(1, 250):
        first = math.ceil(k * period)
        np.testing.assert_allclose(
            rates(schedule, [first - 1, first]), [0.973 ** (k - 1), 0.973**k], rtol=1e-6
        )


def test_cosine_is_optax_warmup_cosine():
    c = record(name="cosine", warmup_steps=50, warmup_init=1e-3, end_lr=0.01)
    reference = optax.warmup_cosine_decay_schedule(1e-3, 0.5, 50, 400, end_value=0.01)
    steps = np.arange(450)  # Beyond the end, too.
    np.testing.assert_allclose(
        rates(schedules.create(c, 0.5, 400), steps), [reference(step) for step in steps], rtol=2e-5
    )


@pytest.mark.parametrize(("power", "end_lr", "ratio"), [(1.0, 0.0, 1e-6), (0.9, 1e-4, 0.1)])
def test_poly_follows_mmcv(power, end_lr, ratio):
    lr, total, warmup = 5e-4, 2000, 150
    expected = []
    for step in range(total + 1):
        regular = (lr - end_lr) * (1 - step / total) ** power + end_lr
        cut = (1 - step / warmup) * (1 - ratio) if step < warmup else 0.0
        expected.append(regular * (1 - cut))
    c = record(name="poly", warmup_steps=warmup, warmup_init=ratio * lr, end_lr=end_lr, power=power)
    np.testing.assert_allclose(
        rates(schedules.create(c, lr, total), np.arange(total + 1)), expected, rtol=1e-6
    )
    assert expected[0] == pytest.approx(c.warmup_init)


def test_noise_is_one_bounded_draw_per_block_from_its_step_on():
    quiet = record(name="poly", hold_steps=10)
    noisy = record(name="poly", hold_steps=10, noise_from=400, noise_limit=0.67, noise_seed=7)
    steps = np.arange(1000)
    ratio = rates(schedules.create(noisy, 1.0, 1000), steps) / rates(
        schedules.create(quiet, 1.0, 1000), steps
    )
    assert np.all(ratio[:400] == 1)
    blocks = ratio.reshape(100, 10)
    assert np.all(blocks == blocks[:, :1])
    assert len(np.unique(blocks[40:, 0])) == 60
    assert np.all(np.abs(blocks - 1) < 0.67)


def test_noise_has_the_spread_of_a_truncated_normal():
    c = record(name="poly", power=0.0, noise_from=1, noise_limit=0.67)
    draws = rates(schedules.create(c, 1.0, 20_000), np.arange(1, 20_000)) - 1
    density, mass = math.exp(-(0.67**2) / 2) / math.sqrt(2 * math.pi), math.erf(0.67 / math.sqrt(2))
    assert np.std(draws) == pytest.approx(math.sqrt(1 - 2 * 0.67 * density / mass), rel=0.02)
    assert np.mean(draws) == pytest.approx(0, abs=0.01)


def test_noise_depends_on_the_seed_and_the_block_only():
    longer, again, other = (
        rates(
            schedules.create(record(name="step", decay_rate=1.0, noise_from=1, **kw), 1.0, total), range(1, 9)
        )
        for kw, total in (({}, 500), ({}, 9), ({"noise_seed": 43}, 500))
    )
    assert np.array_equal(longer, again)
    assert np.array_equal(longer[1:], other[:-1])  # seed + index, as timm.


def test_traced_and_python_steps_agree_in_float32():
    schedule = schedules.create(record(name="cosine"), 0.1, 1000)
    traced = jax.jit(schedule)(jnp.int32(321))
    assert traced.dtype == jnp.float32
    assert traced.shape == ()
    assert traced == schedule(321)


def test_steps_after_the_end_keep_the_last_rate():
    schedule = schedules.create(record(name="poly", end_lr=0.25), 1.0, 100)
    assert schedule(100) == schedule(10_000) == 0.25


@pytest.mark.parametrize(
    ("name", "step", "same"),
    [
        ("step", 1000, True),  # Its rates do not depend on the length of the run.
        ("cosine", 100, True),  # Warm-up comes first, and the cosine starts after it.
        ("cosine", 120, False),
        ("poly", 1, True),
        ("poly", 50, False),
    ],
)
@pytest.mark.parametrize("hold", [1, 7])
def test_runs_of_other_lengths_may_have_the_same_rates(name, step, same, hold):
    c = record(name=name, warmup_steps=100, decay_steps=30.0, hold_steps=hold, noise_from=10)
    assert schedules.same_before(step, c, 0.1, (1000, 2000)) == same
    steps = np.arange(step)
    shorter, longer = (rates(schedules.create(c, 0.1, total), steps) for total in (1000, 2000))
    assert np.array_equal(shorter, longer) == same
