"""Learning-rate schedules: warm-up, decay, rates held for an epoch, and timm's learning-rate noise.

A schedule is a table with one rate per hold block (`hold_steps` consecutive steps). The table is computed once on
the host in float64; the compiled training step looks the rate up by its step number. This keeps the floors exact for
any step, while a float32 quotient can round across the end of a decay period. It also means that noise needs no
state.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax


def create(config: ml_collections.ConfigDict, lr: float, total_steps: int) -> optax.Schedule:
    """Returns the schedule step -> learning rate (float32 scalar) of `config.optim.schedule`.

    The rate is `decay(t) * warm_up(t)`, where t is the first step of the current hold block. `warm_up` rises linearly
    from warmup_init / lr at step 0 to 1 at warmup_steps. The warm-up steps are part of total_steps. The decays:

    - `step`: lr * decay_rate^floor(t / decay_steps), with t counted from step 0, but lr during warm-up. This is
      timm's scheduler/step_lr.py with `t_in_epochs` if hold_steps is an epoch.
    - `multistep`: lr * decay_rate^n, where n of the `milestones` are at most t. This is PyTorch's `MultiStepLR`.
    - `cosine`: half a cosine from lr at the end of warm-up to end_lr at total_steps, as
      `optax.warmup_cosine_decay_schedule`. (timm's cosine starts at step 0 and drops where warm-up ends.)
    - `poly`: end_lr + (lr - end_lr) * (1 - t / total_steps)^power. Warm-up multiplies the decaying rate, as
      mmcv's `PolyLrUpdaterHook` with linear warm-up. Its `warmup_ratio` is warmup_init / lr here.

    In blocks that start at `noise_from` or later (0 switches the noise off) the rate is multiplied by 1 + n. Each
    block has one n ~ N(0, 1), drawn again until |n| < noise_limit and seeded by noise_seed + the block's index. This
    is the noise of timm's scheduler/scheduler.py, but NumPy's generator gives other draws than PyTorch's.

    Args:
        config: `config.optim.schedule` of a config that `config_check` has checked.
        lr: Learning rate at the end of warm-up, > 0.
        total_steps: Steps of the whole run, >= 1. Later steps keep the last rate.

    Returns:
        A function of an integer step (Python or traced) that works inside `jax.jit`.
    """
    # The table becomes a constant of the compiled step.
    table, hold = _table(config, lr, total_steps), config.hold_steps

    def schedule(step: int | jax.Array) -> jax.Array:
        return jnp.take(table, step // hold, mode="clip")  # "clip" keeps the last rate.

    return schedule


def same_before(step: int, config: ml_collections.ConfigDict, lr: float, totals: tuple[int, int]) -> bool:
    """Returns whether two runs that differ in `total_steps` only have the same learning rates before `step`.

    Args:
        step: A step, at most the smaller one of `totals`.
        config: `config.optim.schedule` of both runs.
        lr: `config.optim.lr` of both runs.
        totals: `config.total_steps` of each run.
    """
    blocks = -(-step // config.hold_steps)
    first, second = (_table(config, lr, total)[:blocks] for total in totals)
    return np.array_equal(first, second)


def _table(config: ml_collections.ConfigDict, lr: float, total_steps: int) -> np.ndarray:
    """Returns the rate of every hold block, float32 [blocks]; the arguments are those of `create`."""
    starts = np.arange(0, total_steps + 1, config.hold_steps)
    # In float64, and rounded at the end.
    rates = _DECAYS[config.name](config, lr, total_steps, starts) * _warm_up(config, lr, starts)
    # Noise comes on top of decay and warm-up.
    if config.noise_from > 0:
        noisy = np.flatnonzero(starts >= config.noise_from)
        rates[noisy] *= 1 + _noise(config, noisy)
    return rates.astype(np.float32)


def _step(config: ml_collections.ConfigDict, lr: float, total_steps: int, t: np.ndarray) -> np.ndarray:
    del total_steps
    # decay_steps such as 0.1 x 1251 is a rounded float, so t = 1251 can fall just short of ten periods. The small
    # term corrects that.
    periods = np.floor(t / config.decay_steps + 1e-9)
    return lr * config.decay_rate ** np.where(t < config.warmup_steps, 0, periods)


def _multistep(config: ml_collections.ConfigDict, lr: float, total_steps: int, t: np.ndarray) -> np.ndarray:
    del total_steps
    return lr * config.decay_rate ** np.searchsorted(np.sort(config.milestones), t, side="right")


def _cosine(config: ml_collections.ConfigDict, lr: float, total_steps: int, t: np.ndarray) -> np.ndarray:
    after = np.maximum(t - config.warmup_steps, 0) / max(total_steps - config.warmup_steps, 1)
    return config.end_lr + (lr - config.end_lr) * (1 + np.cos(np.pi * after)) / 2


def _poly(config: ml_collections.ConfigDict, lr: float, total_steps: int, t: np.ndarray) -> np.ndarray:
    return config.end_lr + (lr - config.end_lr) * (1 - t / total_steps) ** config.power


# `config_ranges.NAMES` has the same names.
_DECAYS: dict[str, Callable] = {"step": _step, "multistep": _multistep, "cosine": _cosine, "poly": _poly}


def _warm_up(config: ml_collections.ConfigDict, lr: float, t: np.ndarray) -> np.ndarray:
    if config.warmup_steps == 0:
        return np.ones(len(t))
    # The share of warm-up that is left: 1 at step 0, 0 from warmup_steps on.
    left = np.maximum(1 - t / config.warmup_steps, 0)
    return 1 - left * (1 - config.warmup_init / lr)


def _noise(config: ml_collections.ConfigDict, blocks: np.ndarray) -> np.ndarray:
    """Returns one draw per block index, [len(blocks)], in (-noise_limit, noise_limit)."""
    draws = np.empty(len(blocks))
    for i, block in enumerate(blocks):
        # A generator per block, so that its draw does not depend on where the noise starts.
        generator = np.random.default_rng(config.noise_seed + block)
        draws[i] = generator.standard_normal()
        while abs(draws[i]) >= config.noise_limit:
            draws[i] = generator.standard_normal()
    return draws
