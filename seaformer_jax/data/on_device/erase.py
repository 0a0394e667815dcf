"""Random erasing of a whole batch inside the training step."""

import jax
import jax.numpy as jnp

from seaformer_jax.data.on_device.boxes import inside

# Range of the box's share of the image area. These three: seaformer-cls/timm/data/random_erasing.py.
_AREA = (0.02, 1 / 3)
_ASPECT = (0.3, 1 / 0.3)
_ATTEMPTS = 10


def random_erasing(images: jax.Array, key: jax.Array, probability: float) -> jax.Array:
    """Applies random erasing (https://arxiv.org/abs/1708.04896) in timm's mode "pixel", on normalised images.

    With the given probability, an image loses one box to noise from N(0, 1), drawn for every value. The box's share
    of the image area is uniform in [0.02, 1/3]; its height / width is log-uniform in [0.3, 1/0.3]. The first of ten
    draws that is smaller than the image in both directions is taken; if none is, the image is not changed.

    Args:
        images: float [B, H, W, C], normalised.
        key: A JAX random key.
        probability: Probability in [0, 1] that an image is erased; 0 returns `images` itself.

    Returns:
        The erased images, with the shape and type of `images`.
    """
    if not probability:
        return images
    return jax.vmap(lambda image, k: _erase(image, k, probability))(
        images, jax.random.split(key, len(images))
    )


def _erase(image: jax.Array, key: jax.Array, probability: float) -> jax.Array:
    """Applies random erasing to one image [H, W, C]."""
    height, width, _ = image.shape
    chance, shape, position, noise = jax.random.split(key, 4)
    box = erasing_box(
        jax.random.uniform(shape, (_ATTEMPTS, 2)), jax.random.uniform(position, (2,)), height, width
    )
    erased = inside(box, height, width) & jax.random.bernoulli(chance, probability)
    # The noise is drawn in float32 and then cast, because bfloat16 draws have no tails.
    pixels = jax.random.normal(noise, image.shape).astype(image.dtype)
    return jnp.where(erased[..., None], pixels, image)


def erasing_box(shape: jax.Array, position: jax.Array, height: int, width: int) -> jax.Array:
    """Returns the first of several drawn boxes that fits.

    Args:
        shape: [attempts, 2] in [0, 1): where area and log aspect ratio lie between their bounds.
        position: [2] in [0, 1): vertical and horizontal position among those that lie inside the image.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        int32 [4]: top, left, bottom, right in pixels, the last two exclusive; an empty box if no draw fits.
    """
    # 1. Height and width of the boxes of all attempts.
    area = height * width * (_AREA[0] + shape[:, 0] * (_AREA[1] - _AREA[0]))
    low, high = jnp.log(jnp.array(_ASPECT))
    aspect = jnp.exp(low + shape[:, 1] * (high - low))
    sides = jnp.round(jnp.stack([jnp.sqrt(area * aspect), jnp.sqrt(area / aspect)], axis=1)).astype(jnp.int32)
    # 2. The first one that fits: argmax returns the first True.
    fits = jnp.all(sides < jnp.array([height, width]), axis=1)
    side = jnp.where(jnp.any(fits), sides[jnp.argmax(fits)], 0)
    # 3. Its upper left corner, uniform among the positions inside the image.
    corner = jnp.floor(position * (jnp.array([height, width]) - side + 1)).astype(jnp.int32)
    return jnp.concatenate([corner, corner + side])
