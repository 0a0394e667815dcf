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
        images: uint8 [B, H, W, C].
        targets: [B, num_classes], one-hot or smoothed.
        key: A JAX random key.
        mixup: Alpha of mixup; 0 switches mixup off.
        cutmix: Alpha of CutMix; 0 switches CutMix off.
        group: Images per group; a batch that is smaller is one group.

    Returns:
        images uint8 [B, H, W, C] and targets float32 [B, num_classes]; the arguments themselves if both alphas are 0.

    Raises:
        UserError: The batch is larger than `group` and not a multiple of it.
    """
    if not mixup and not cutmix:
        return images, targets
    # 1. Each group has its own draws, from its own key. They are repeated for every image of the group.
    groups, (height, width) = _num_groups(len(images), group), images.shape[1:3]
    draws = jax.vmap(lambda k: _draw(k, height, width, mixup, cutmix))(jax.random.split(key, groups))
    box, share, lam = (jnp.repeat(drawn, len(images) // groups, axis=0) for drawn in draws)
    # 2. The rounded pixels are kept as bytes, a quarter of the memory traffic of float32.
    keep = jnp.where(jax.vmap(lambda b: inside(b, height, width))(box), 0, share[:, None, None])[..., None]
    mixed = jnp.round(_blend(images, groups, keep)).astype(images.dtype)
    # 3. The targets are blended with the mean of the pixels' shares.
    return mixed, _blend(targets.astype(jnp.float32), groups, lam[:, None])


def _num_groups(batch: int, group: int) -> int:
    """Returns the number of groups in a batch; UserError if it cannot be divided evenly."""
    if batch > group and batch % group:
        raise UserError(
            f"A batch of {batch} images cannot be split into groups of {group} that share a mixing factor; set "
            f"augment.mix_group to a divisor of {batch}."
        )
    return max(1, batch // group)


def _blend(x: jax.Array, groups: int, keep: jax.Array) -> jax.Array:
    """Returns keep * x + (1 - keep) * partner for x [B, ...]; partners are in reversed order within each group."""
    partners = x.reshape(groups, -1, *x.shape[1:])[:, ::-1].reshape(x.shape)
    # Without the barrier a TPU makes the partners float32 before it brings them into the layout of x.
    return keep * x + (1 - keep) * jax.lax.optimization_barrier(partners)


def _draw(
    key: jax.Array, height: int, width: int, mixup: float, cutmix: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Draws how much one group's images keep of themselves.

    Returns:
        A box int32 [4] of which they keep nothing, empty for mixup; the share that they keep of every other pixel;
        and the mean of the shares over the image: lambda.
    """
    choice, mixup_key, cutmix_key, centre = jax.random.split(key, 4)
    share = jax.random.beta(mixup_key, mixup, mixup) if mixup else jnp.ones(())
    if not cutmix:
        return jnp.zeros(4, jnp.int32), share, share
    box_lam = jax.random.beta(cutmix_key, cutmix, cutmix)
    box = cutmix_box(box_lam, jax.random.uniform(centre, (2,)), height, width)
    use_cutmix = jax.random.bernoulli(choice, 0.5 if mixup else 1.0)
    box, share = jnp.where(use_cutmix, box, 0), jnp.where(use_cutmix, 1.0, share)
    # Lambda is computed anew from the box, because rounding and clipping change its size.
    area = (box[2] - box[0]) * (box[3] - box[1])
    return box, share, share * (1 - area / (height * width))


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
