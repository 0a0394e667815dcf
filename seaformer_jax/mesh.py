"""Data parallelism: a mesh with one axis over all devices of all hosts."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from seaformer_jax.errors import UserError


def create_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns a mesh over `devices`, by default all of all hosts, with the single axis "data"."""
    count = jax.device_count() if devices is None else len(devices)
    # Auto axes, because with Explicit ones, the default, optax's integer cross-entropy has no gradient on jax 0.12.
    return jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,), devices=devices)


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


def check_batch_size(mesh: Mesh, batch_size: int, microbatches: int) -> None:
    """Checks that the training batch divides evenly among the devices and microbatches.

    Args:
        mesh: Mesh of the devices.
        batch_size: Number of images of the global batch.
        microbatches: Number of microbatches per step.
    Raises:
        UserError: The batch does not divide; the message names the nearest sizes that do.
    """
    parts = mesh.size * microbatches
    if batch_size % parts:
        made_of = f"{mesh.size} devices" + (f" x {microbatches} microbatches" if microbatches > 1 else "")
        lower = batch_size // parts * parts
        near = f"{lower} or {lower + parts}" if lower else f"{parts}"
        raise UserError(f"batch_size = {batch_size} does not divide among {made_of}; use {near}")


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
