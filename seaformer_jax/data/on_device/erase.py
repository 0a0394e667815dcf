"""Random erasing of a whole batch inside the training step."""

import jax
import jax.numpy as jnp

from seaformer_jax.data.on_device.boxes import inside

_AREA = (0.02, 1 / 3)  # Of the image; this and the next two: seaformer-cls/timm/data/random_erasing.py.
_ASPECT = (0.3, 1 / 0.3)
_ATTEMPTS = 10


def random_erasing(images: jax.Array, key: jax.Array, probability: float) -> jax.Array:
    """Random erasing (https://arxiv.org/abs/1708.04896) in timm's mode "pixel", on normalised images.

    Each image loses, with the given probability, one box to noise from N(0, 1), drawn per value. The box has a share
    of the area uniform in [0.02, 1/3] and height / width log-uniform in [0.3, 1/0.3]; where ten draws give none that
    is smaller than the image in both directions, the image stays whole.

    Args:
        images: float [B, H, W, C], normalised.
        key: a JAX random key.
        probability: in [0, 1]; 0 returns the very argument.
    """
    if not probability:
        return images
    return jax.vmap(lambda image, k: _erase(image, k, probability))(
        images, jax.random.split(key, len(images))
    )


def _erase(image: jax.Array, key: jax.Array, probability: float) -> jax.Array:
    height, width, _ = image.shape
    chance, shape, position, noise = jax.random.split(key, 4)
    box = erasing_box(
        jax.random.uniform(shape, (_ATTEMPTS, 2)), jax.random.uniform(position, (2,)), height, width
    )
    erased = inside(box, height, width) & jax.random.bernoulli(chance, probability)
    pixels = jax.random.normal(noise, image.shape).astype(image.dtype)  # bfloat16 draws have no tails.
    return jnp.where(erased[..., None], pixels, image)


def erasing_box(shape: jax.Array, position: jax.Array, height: int, width: int) -> jax.Array:
    """The first of several drawn boxes that fits.

    Args:
        shape: [attempts, 2] in [0, 1): where area and log aspect ratio lie between their bounds.
        position: [2] in [0, 1): vertical and horizontal, among the positions inside the image.

    Returns:
        int32 [4]: top, left, bottom, right in pixels, the last two exclusive; empty where no box fits.
    """
    area = height * width * (_AREA[0] + shape[:, 0] * (_AREA[1] - _AREA[0]))
    low, high = jnp.log(jnp.array(_ASPECT))
    aspect = jnp.exp(low + shape[:, 1] * (high - low))
    sides = jnp.round(jnp.stack([jnp.sqrt(area * aspect), jnp.sqrt(area / aspect)], axis=1)).astype(jnp.int32)
    fits = jnp.all(sides < jnp.array([height, width]), axis=1)
    side = jnp.where(jnp.any(fits), sides[jnp.argmax(fits)], 0)
    corner = jnp.floor(position * (jnp.array([height, width]) - side + 1)).astype(jnp.int32)
    return jnp.concatenate([corner, corner + side])
