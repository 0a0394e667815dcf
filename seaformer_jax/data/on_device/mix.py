"""Mixup and CutMix of a whole batch inside the training step."""

import jax
import jax.numpy as jnp

from seaformer_jax.data.on_device.boxes import inside
from seaformer_jax.errors import UserError


def mix(
    images: jax.Array, targets: jax.Array, key: jax.Array, *, mixup: float, cutmix: float, group: int
) -> tuple[jax.Array, jax.Array]:
    """Applies mixup (https://arxiv.org/abs/1710.09412) and CutMix (https://arxiv.org/abs/1905.04899).

    This is timm's "batch" mode. Consecutive images form groups. A group shares one draw of lambda ~ Beta(alpha,
    alpha) and one box, and image i of a group is mixed with image group - 1 - i. In the official recipe a group is
    the batch of one GPU. If both alphas are positive, each group takes one of the two methods with probability 0.5.
    The source is `FastCollateMixup` of `seaformer-cls/timm/data/mixup.py`, which mixes the pixel values 0..255 and
    rounds mixup's to integers.

    A mesh with more devices than groups gives correct results, but the devices then exchange images.

    Args:
        images: [B, H, W, C] in 0..255.
        targets: [B, num_classes], one-hot or smoothed.
        key: A JAX random key.
        mixup: Alpha of mixup; 0 switches mixup off.
        cutmix: Alpha of CutMix; 0 switches CutMix off.
        group: Images per group; a batch that is smaller is one group.

    Returns:
        images as float32 [B, H, W, C] with integer values in 0..255, and targets float32 [B, num_classes]; if both
        alphas are 0, the arguments themselves.

    Raises:
        UserError: The batch is larger than `group` and not a multiple of it.
    """
    if not mixup and not cutmix:
        return images, targets
    # 1. One axis for the groups, one for the images of a group.
    groups = _num_groups(len(images), group)
    x = images.astype(jnp.float32).reshape(groups, -1, *images.shape[1:])
    y = targets.astype(jnp.float32).reshape(groups, -1, targets.shape[-1])
    # 2. Each group has its own draws, from its own key.
    keep, lam = jax.vmap(lambda k: _keep(k, *images.shape[1:3], mixup, cutmix))(jax.random.split(key, groups))
    # 3. All images of a group share its blending mask. The targets are blended with the mask's mean.
    x = jnp.round(_blend(x, keep[:, None, :, :, None]))
    return x.reshape(images.shape), _blend(y, lam[:, None, None]).reshape(targets.shape)


def _num_groups(batch: int, group: int) -> int:
    """Returns the number of groups in a batch; UserError if it cannot be divided evenly."""
    if batch > group and batch % group:
        raise UserError(
            f"A batch of {batch} images cannot be split into groups of {group} that share a mixing factor; set "
            f"augment.mix_group to a divisor of {batch}."
        )
    return max(1, batch // group)


def _blend(x: jax.Array, keep: jax.Array) -> jax.Array:
    """Returns keep * x + (1 - keep) * partner for x [groups, group, ...]; partners are in reversed order."""
    return keep * x + (1 - keep) * x[:, ::-1]


def _keep(
    key: jax.Array, height: int, width: int, mixup: float, cutmix: float
) -> tuple[jax.Array, jax.Array]:
    """Draws how much one group's images keep of themselves.

    Returns:
        The share of every pixel, [height, width], and its mean over the image, a scalar: lambda.
    """
    choice, mixup_key, cutmix_key, centre = jax.random.split(key, 4)
    lam = jax.random.beta(mixup_key, mixup, mixup) if mixup else jnp.ones(())
    keep = jnp.full((height, width), lam)
    if cutmix:
        # Lambda is computed anew from the box, because rounding and clipping change its size.
        box_lam = jax.random.beta(cutmix_key, cutmix, cutmix)
        outside = ~inside(cutmix_box(box_lam, jax.random.uniform(centre, (2,)), height, width), height, width)
        use_cutmix = jax.random.bernoulli(choice, 0.5 if mixup else 1.0)
        keep = jnp.where(use_cutmix, outside, keep)
        lam = jnp.where(use_cutmix, jnp.mean(outside), lam)
    return keep, lam


def cutmix_box(lam: jax.Array, centre: jax.Array, height: int, width: int) -> jax.Array:
    """Returns CutMix's box (timm's `rand_bbox`): its sides are sqrt(1 - lam) of the image's, clipped at the borders.

    Args:
        lam: Scalar in [0, 1], the share that an image keeps of itself before clipping.
        centre: [2] in [0, 1), vertical and horizontal position of the box's centre.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        int32 [4]: top, left, bottom, right in pixels, the last two exclusive.
    """
    size = jnp.array([height, width])
    half = jnp.floor(size * jnp.sqrt(1 - lam)).astype(jnp.int32) // 2
    middle = jnp.floor(centre * size).astype(jnp.int32)
    return jnp.concatenate([jnp.maximum(middle - half, 0), jnp.minimum(middle + half, size)])
