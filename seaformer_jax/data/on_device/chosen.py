"""Work on the chosen images of a batch only.

What differs between images becomes, in one program for the whole batch, all of it for every image. An operation that
few images need and that costs much is therefore a loop over these images.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from seaformer_jax.mesh import batch_devices

_PARTS = 16  # A round of the loop works on this part of a device's images.


def on_chosen(
    function: Callable[..., jax.Array], images: jax.Array, chosen: jax.Array, *arguments: jax.Array
) -> jax.Array:
    """Returns `images` with `function(images, *arguments)` in place of the chosen ones.

    Each device has a loop of its own over the images that it holds, and no image moves between devices.

    Args:
        function: Maps some images [b, H, W, C] and their arguments [b, ...] to new images of the same shape and type.
        images: [B, H, W, C].
        chosen: bool [B].
        *arguments: Arrays [B, ...].
    """

    def local(images, chosen, *arguments):
        return _loop(function, images, chosen, arguments)

    if batch_devices() > 1:
        rows = PartitionSpec("data")
        local = jax.shard_map(local, in_specs=rows, out_specs=rows, check_vma=False)
    return local(images, chosen, *arguments)


def _loop(function, images, chosen, arguments):
    batch = len(images)
    size, count = -(-batch // _PARTS), chosen.sum()
    # 1. The chosen images' numbers come first; the others become `batch`, which no image has.
    order = jnp.argsort(~chosen)
    order = jnp.where(jnp.arange(batch) < count, order, batch)
    order = jnp.pad(order, (0, -batch % size), constant_values=batch)

    # 2. `size` of them at a time. Where a number is `batch`, the last image is read and nothing is written.
    def step(state):
        first, images = state
        index = jax.lax.dynamic_slice_in_dim(order, first, size)
        read = (array.at[index].get(mode="clip") for array in (images, *arguments))
        return first + size, images.at[index].set(function(*read), mode="drop")

    return jax.lax.while_loop(lambda state: state[0] < count, step, (0, images))[1]
