"""Flips and RandAugment of a batch inside the training step, with the policy of `classification/randaugment.py`."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seaformer_jax.data.classification.randaugment import (
    OPS,
    PROBABILITY,
    UNIFORM_ABOVE,
    WEIGHTS,
    RandAugment,
)
from seaformer_jax.data.on_device.chosen import on_chosen
from seaformer_jax.data.on_device.colour import equalize, recolour, sharpen
from seaformer_jax.data.on_device.warp import WARPS, warp
from seaformer_jax.errors import UserError

_NONE = -1  # In place of an operation that is not applied.
_EQUALIZE, _SHARPNESS = (list(OPS).index(name) for name in ("Equalize", "Sharpness"))


class Draws(NamedTuple):
    """What is drawn for the images of a batch.

    Attributes:
        op: int [layers, B], index in `OPS`, or -1 for none.
        argument: float32 [layers, B], the argument of the operation.
        cubic: bool [layers, B], whether a geometric operation interpolates cubically.
    """

    op: jax.Array
    argument: jax.Array
    cubic: jax.Array


def flip(images: jax.Array, mirrored: jax.Array) -> jax.Array:
    """Mirrors the images [B, H, W, C] left to right for which `mirrored`, bool [B], is True."""
    return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


def rand_augment(images: jax.Array, key: jax.Array, policy: RandAugment) -> jax.Array:
    """Augments every image of a batch with draws of its own.

    Args:
        images: uint8 [B, H, W, 3].
        key: A JAX random key.
        policy: What to draw, as on the host.

    Returns:
        uint8 [B, H, W, 3].

    Raises:
        UserError: The policy rotates by 180 degrees or more.
    """
    degrees = OPS["Rotate"].level.slope * policy.limit / 10
    if degrees >= 180:
        raise UserError(
            f"RandAugment with mmax{policy.limit} rotates by up to {degrees:g} degrees; on the device expected less "
            "than 180: lower mmax, or set augment.on_device=False"
        )
    warp_filled = functools.partial(warp, fill=policy.fill, max_degrees=degrees)

    def layer(images, drawn):
        images = recolour(images, drawn.op, drawn.argument)
        images = on_chosen(equalize, images, drawn.op == _EQUALIZE)
        images = on_chosen(sharpen, images, drawn.op == _SHARPNESS, drawn.argument)
        return on_chosen(warp_filled, images, jnp.isin(drawn.op, jnp.array(WARPS)), *drawn), None

    return jax.lax.scan(layer, images, draw(key, len(images), policy))[0]


def draw(key: jax.Array, batch: int, policy: RandAugment) -> Draws:
    """Draws the operations of a batch from the distributions of `RandAugment`."""
    shape = (policy.layers, batch)
    op_key, use_key, size_key, sign_key, filter_key = jax.random.split(key, 5)
    # 1. The operations. The largest of logarithms of weights plus Gumbel noise are a draw without replacement.
    if policy.weighted:
        with np.errstate(divide="ignore"):
            scores = np.log(WEIGHTS) + jax.random.gumbel(op_key, (batch, len(OPS)))
        op = jax.lax.top_k(scores, policy.layers)[1].T
    else:
        op = jax.random.randint(op_key, shape, 0, len(OPS))
    # 2. The magnitudes.
    if policy.std > UNIFORM_ABOVE:
        magnitude = jax.random.uniform(size_key, shape, maxval=policy.magnitude)
    else:
        magnitude = policy.magnitude + policy.std * jax.random.normal(size_key, shape)
    share = jnp.clip(magnitude, 0, policy.limit) / 10
    # 3. The arguments, as `Level` computes them.
    levels = [row.level_increasing if policy.increasing else row.level for row in OPS.values()]
    slope, start, signed, whole, least = (jnp.array(column)[op] for column in zip(*levels, strict=True))
    change = slope * share
    change = jnp.where(signed & jax.random.bernoulli(sign_key, shape=shape), -change, change)
    argument = jnp.maximum(least, start + jnp.where(whole, jnp.trunc(change), change))
    # 4. Which of them are applied, and the filters.
    op = jnp.where(jax.random.bernoulli(use_key, PROBABILITY, shape), op, _NONE)
    return Draws(op, argument, draw_cubic(filter_key, policy.interpolation, shape))


def draw_cubic(key: jax.Array, interpolation: str, shape: tuple[int, ...]) -> jax.Array:
    """Draws whether to interpolate cubically: as "bicubic" always, "bilinear" never, "random" half of the times."""
    return jax.random.bernoulli(key, {"random": 0.5, "bilinear": 0.0, "bicubic": 1.0}[interpolation], shape)
