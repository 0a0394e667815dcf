"""Data parallelism: a mesh with one axis over all devices of all hosts."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from seaformer_jax.errors import UserError

# Images that a TPU chip works on at once: where there are as many, XLA lays them along the lanes of its vector unit.
_LANES = 128


def create_mesh() -> Mesh:
    """Returns a mesh over all devices with the single axis "data"."""
    # Auto axes, because with Explicit ones, the default, optax's integer cross-entropy has no gradient on jax 0.12.
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that splits the first axis of an array, the batch, over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that puts the whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def put_batch(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Creates global arrays [B, ...], sharded over the batch, from this process's rows [B / processes, ...]."""
    sharding = batch_sharding(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()}


def check_batch_size(batch_size: int, microbatches: int) -> None:
    """Checks that the training batch divides evenly among the devices and microbatches.

    Args:
        batch_size: Number of images of the global batch.
        microbatches: Number of microbatches per step.
    Raises:
        UserError: The batch does not divide; the message names the nearest sizes that do.
    """
    parts = jax.device_count() * microbatches
    if batch_size % parts:
        made_of = f"{jax.device_count()} devices" + (
            f" x {microbatches} microbatches" if microbatches > 1 else ""
        )
        lower = batch_size // parts * parts
        near = f"{lower} or {lower + parts}" if lower else f"{parts}"
        raise UserError(f"batch_size = {batch_size} does not divide among {made_of}; use {near}")


def tpu_advice(chips: int, batch_size: int, microbatches: int, bn_groups: int) -> list[str]:
    """Returns what to change so that TPU chips move fewer bytes and exchange less; [] if there is nothing.

    Source: the training step compiled for TPU v5e, in docs/accelerators.md. At 64 images per chip it moves three
    times as many bytes per image as at 128 or 256. BatchNorm groups that lie on one chip each cost a layer two
    collectives, forward and backward; groups that span several chips cost six. One group for all chips is left
    alone, because it is a choice: the statistics of the whole batch.

    Args:
        chips: Number of chips.
        batch_size: Number of images of the global batch, which divides among chips and microbatches.
        microbatches: Number of microbatches per step.
        bn_groups: Number of BatchNorm groups of a microbatch, which it divides into.
    Returns:
        One line per setting that another value would suit better; it names this value.
    """
    lines, images = [], batch_size // microbatches
    if images // chips % _LANES:
        full = chips * microbatches * _LANES  # The smallest batch that fills all lanes.
        lower = batch_size // full * full
        near = f"{lower} or {lower + full}" if lower else f"{full}, or fewer chips"
        lines.append(
            f"batch_size = {batch_size} puts {images // chips} images on each of {chips} TPU chips at a time, and "
            f"only a multiple of {_LANES} fills their lanes: fewer move up to three times the bytes per image; use "
            f"{near} (docs/accelerators.md)"
        )
    if bn_groups > 1 and bn_groups % chips:
        whole = [groups for groups in range(chips, images + 1, chips) if images % groups == 0]
        better = min(whole, key=lambda groups: abs(groups - bn_groups))
        lines.append(
            f"model.bn_groups = {bn_groups} makes BatchNorm groups that span several of {chips} TPU chips, which "
            f"costs six collectives per layer instead of two; use {better} (docs/accelerators.md)"
        )
    return lines


def padded_batch_size(batch_size: int) -> int:
    """Returns the smallest number of at least `batch_size` images that divides evenly among the devices."""
    return -(-batch_size // jax.device_count()) * jax.device_count()


def of_first_process(numbers: Sequence[int]) -> list[int]:
    """Returns the numbers that process 0 gave; every process has to call this."""
    if jax.process_count() == 1:
        return list(numbers)
    # A collective takes arrays of one shape: the length goes first.
    count = int(multihost_utils.broadcast_one_to_all(np.int32(len(numbers))))
    padded = np.resize(np.array([*numbers, 0], np.int32), count)
    return multihost_utils.broadcast_one_to_all(padded).tolist()


def largest(number: int) -> int:
    """Returns the largest of the numbers that the processes gave; every process has to call this."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.process_allgather(np.int32(number)).max())
