"""Learning-rate schedules: warm-up, decay, rates held for an epoch, and timm's learning-rate noise.

A schedule is a table with one rate per hold block (a run of `hold_steps` steps), computed once on the host in
float64 and indexed by the step inside the compiled training step. So the floors are exact however large the
step (a float32 quotient can round across the end of a decay period), and noise needs no state.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from seaformer_jax.errors import UserError, suggest


def create(config: ml_collections.ConfigDict, lr: float, total_steps: int) -> optax.Schedule:
    """Returns the schedule step -> learning rate (float32 scalar) of `config.optim.schedule`.

    The rate is `decay(t) * warm_up(t)`, t being the first step of the step's hold block. `warm_up` rises
    linearly from warmup_init / lr at step 0 to 1 at warmup_steps, which are counted inside total_steps:

    - `step`: lr * decay_rate^floor(t / decay_steps), t counted from step 0; lr during warm-up (timm
      scheduler/step_lr.py with `t_in_epochs`, if hold_steps is an epoch).
    - `cosine`: half a cosine from lr at the end of warm-up to end_lr at total_steps, as
      `optax.warmup_cosine_decay_schedule`. (timm's cosine starts at step 0 and drops where warm-up ends.)
    - `poly`: end_lr + (lr - end_lr) * (1 - t / total_steps)^power. Warm-up multiplies the decaying rate, as
      mmcv's `PolyLrUpdaterHook` with linear warm-up; its `warmup_ratio` is warmup_init / lr here.

    In blocks that start at `noise_from` or later (0: in none) the rate is multiplied by 1 + n, with one n per
    block, n ~ N(0, 1) drawn again until |n| < noise_limit, seeded by noise_seed + the block's index. That is
    the noise of timm's scheduler/scheduler.py, but from NumPy's generator: other draws than PyTorch's.

    Args:
        config: the `optim.schedule` record.
        lr: learning rate at the end of warm-up, > 0.
        total_steps: steps of the whole run, >= 1. Later steps keep the last rate.

    Returns:
        A function of an integer step (Python or traced), fit for `jax.jit`.

    Raises:
        UserError: an unknown schedule name, or a value that must be positive and is not.
    """
    _check(config, lr, total_steps)
    hold = int(config.hold_steps)
    starts = np.arange(0, total_steps + 1, hold)
    rates = _DECAYS[config.name](config, lr, total_steps, starts) * _warm_up(config, lr, starts)
    if config.noise_from > 0:
        noisy = np.flatnonzero(starts >= config.noise_from)
        rates[noisy] *= 1 + _noise(config, noisy)
    table = rates.astype(np.float32)

    def schedule(step: int | jax.Array) -> jax.Array:
        return jnp.take(table, step // hold, mode="clip")

    return schedule


def _step(config: ml_collections.ConfigDict, lr: float, total_steps: int, t: np.ndarray) -> np.ndarray:
    del total_steps
    # A period of, say, 0.1 x 1251 steps is rounded: the small term keeps ten of them from falling just short.
    periods = np.floor(t / config.decay_steps + 1e-9)
    return lr * config.decay_rate ** np.where(t < config.warmup_steps, 0, periods)


def _cosine(config: ml_collections.ConfigDict, lr: float, total_steps: int, t: np.ndarray) -> np.ndarray:
    after = np.maximum(t - config.warmup_steps, 0) / max(total_steps - config.warmup_steps, 1)
    return config.end_lr + (lr - config.end_lr) * (1 + np.cos(np.pi * after)) / 2


def _poly(config: ml_collections.ConfigDict, lr: float, total_steps: int, t: np.ndarray) -> np.ndarray:
    return config.end_lr + (lr - config.end_lr) * (1 - t / total_steps) ** config.power


_DECAYS: dict[str, Callable] = {"step": _step, "cosine": _cosine, "poly": _poly}


def _warm_up(config: ml_collections.ConfigDict, lr: float, t: np.ndarray) -> np.ndarray:
    if config.warmup_steps == 0:
        return np.ones(len(t))
    left = np.maximum(1 - t / config.warmup_steps, 0)
    return 1 - left * (1 - config.warmup_init / lr)


def _noise(config: ml_collections.ConfigDict, blocks: np.ndarray) -> np.ndarray:
    """Returns one draw per block index, [len(blocks)], in (-noise_limit, noise_limit)."""
    draws = np.empty(len(blocks))
    for i, block in enumerate(blocks):
        generator = np.random.default_rng(config.noise_seed + block)
        draws[i] = generator.standard_normal()
        while abs(draws[i]) >= config.noise_limit:
            draws[i] = generator.standard_normal()
    return draws


def _check(config: ml_collections.ConfigDict, lr: float, total_steps: int) -> None:
    if config.name not in _DECAYS:
        raise UserError(
            f"optim.schedule.name is {config.name!r}; expected one of {', '.join(_DECAYS)}."
            + suggest(config.name, _DECAYS)
        )
    positive = {"optim.lr": lr, "total_steps": total_steps}
    positive |= {f"optim.schedule.{key}": config[key] for key in ("hold_steps", "decay_steps", "noise_limit")}
    for key, value in positive.items():
        if value <= 0:
            raise UserError(f"{key} is {value}; it must be positive")
