"""Augmentation of a whole batch inside the training step: normalise, mix, erase, smooth.

All functions are pure JAX, take the global batch and make their draws from the key alone, so that the result does
not depend on how the batch is sharded. The order of the official recipe is `mix`, `normalize`, `random_erasing`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from seaformer_jax.errors import UserError

_AREA = (0.02, 1 / 3)  # Of the image; this and the next two: seaformer-cls/timm/data/random_erasing.py.
_ASPECT = (0.3, 1 / 0.3)
_ATTEMPTS = 10


def normalize(
    images: jax.Array, mean: Sequence[float], std: Sequence[float], dtype: jnp.dtype = jnp.float32
) -> jax.Array:
    """Returns (images / 255 - mean) / std, computed in float32 and then cast.

    Args:
        images: [B, H, W, 3] in 0..255, uint8 or float32.
        mean, std: per channel, of images in [0, 1].
        dtype: of the result.
    """
    scaled = images.astype(jnp.float32) / 255
    return ((scaled - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)).astype(dtype)


def smooth_one_hot(labels: jax.Array, num_classes: int, smoothing: float) -> jax.Array:
    """One-hot targets [B, num_classes], smoothed: (1 - smoothing) * one_hot + smoothing / num_classes.

    Args:
        labels: int [B], in [0, num_classes).
        smoothing: in [0, 1).
    """
    return optax.smooth_labels(jax.nn.one_hot(labels, num_classes), smoothing)


def mix(
    images: jax.Array, targets: jax.Array, key: jax.Array, *, mixup: float, cutmix: float, group: int
) -> tuple[jax.Array, jax.Array]:
    """Mixup (https://arxiv.org/abs/1710.09412) and CutMix (https://arxiv.org/abs/1905.04899), timm's "batch" mode.

    Consecutive images form groups that share one draw of lambda ~ Beta(alpha, alpha) and of the box; image i of a
    group is mixed with image group - 1 - i. In the official recipe a group is the batch of one GPU. With both alphas
    positive, each group takes one of the two with probability 0.5. After `FastCollateMixup` of
    `seaformer-cls/timm/data/mixup.py`, which mixes the pixel values 0..255 and rounds mixup's to integers.

    A mesh with more devices than groups is correct, but exchanges images between devices.

    Args:
        images: [B, H, W, C] in 0..255.
        targets: [B, num_classes], one-hot or smoothed.
        key: a JAX random key.
        mixup, cutmix: the alphas; 0 switches that one off.
        group: images per group; a batch smaller than this is one group.

    Returns:
        images as float32 [B, H, W, C] with integer values in 0..255, and targets float32 [B, num_classes]; the very
        arguments where both alphas are 0.

    Raises:
        UserError: the batch is larger than `group` and not a multiple of it.
    """
    if not mixup and not cutmix:
        return images, targets
    groups = _num_groups(len(images), group)
    x = images.astype(jnp.float32).reshape(groups, -1, *images.shape[1:])
    y = targets.astype(jnp.float32).reshape(groups, -1, targets.shape[-1])
    keep, lam = jax.vmap(lambda k: _keep(k, *images.shape[1:3], mixup, cutmix))(jax.random.split(key, groups))
    x = jnp.round(_blend(x, keep[:, None, :, :, None]))
    return x.reshape(images.shape), _blend(y, lam[:, None, None]).reshape(targets.shape)


def _num_groups(batch: int, group: int) -> int:
    if batch > group and batch % group:
        raise UserError(
            f"A batch of {batch} images cannot be split into groups of {group} that share a mixing factor; set "
            f"augment.mix_group to a divisor of {batch}."
        )
    return max(1, batch // group)


def _blend(x: jax.Array, keep: jax.Array) -> jax.Array:
    """keep * x + (1 - keep) * partner for x [groups, group, ...]; the partner order is reversed."""
    return keep * x + (1 - keep) * x[:, ::-1]


def _keep(
    key: jax.Array, height: int, width: int, mixup: float, cutmix: float
) -> tuple[jax.Array, jax.Array]:
    """One group's share of the own image, per pixel [height, width], and on average (lambda, a scalar)."""
    choice, mixup_key, cutmix_key, centre = jax.random.split(key, 4)
    lam = jax.random.beta(mixup_key, mixup, mixup) if mixup else jnp.ones(())
    keep = jnp.full((height, width), lam)
    if cutmix:
        box_lam = jax.random.beta(cutmix_key, cutmix, cutmix)
        outside = ~_inside(
            cutmix_box(box_lam, jax.random.uniform(centre, (2,)), height, width), height, width
        )
        use_cutmix = jax.random.bernoulli(choice, 0.5 if mixup else 1.0)
        keep = jnp.where(use_cutmix, outside, keep)
        lam = jnp.where(use_cutmix, jnp.mean(outside), lam)
    return keep, lam


def cutmix_box(lam: jax.Array, centre: jax.Array, height: int, width: int) -> jax.Array:
    """CutMix's box (timm's `rand_bbox`): sides sqrt(1 - lam) of the image's, clipped at its borders.

    Args:
        lam: scalar in [0, 1], the share of the own image before clipping.
        centre: [2] in [0, 1), vertical and horizontal position of the centre.

    Returns:
        int32 [4]: top, left, bottom, right in pixels, the last two exclusive.
    """
    size = jnp.array([height, width])
    half = jnp.floor(size * jnp.sqrt(1 - lam)).astype(jnp.int32) // 2
    middle = jnp.floor(centre * size).astype(jnp.int32)
    return jnp.concatenate([jnp.maximum(middle - half, 0), jnp.minimum(middle + half, size)])


def _inside(box: jax.Array, height: int, width: int) -> jax.Array:
    """bool [height, width]: the pixels of a box (top, left, bottom, right)."""
    top, left, bottom, right = box
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)
    return (top <= rows) & (rows < bottom) & (left <= columns) & (columns < right)


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
    erased = _inside(box, height, width) & jax.random.bernoulli(chance, probability)
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
