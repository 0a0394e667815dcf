"""Mixup and CutMix of a whole batch inside the training step."""

import jax
import jax.numpy as jnp

from seaformer_jax.data.on_device.boxes import inside
from seaformer_jax.errors import UserError


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
        outside = ~inside(cutmix_box(box_lam, jax.random.uniform(centre, (2,)), height, width), height, width)
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
