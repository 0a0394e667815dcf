"""Data parallelism: one mesh axis over all devices of all hosts."""

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from seaformer_jax.errors import UserError


def initialize_distributed(config: ConfigDict) -> None:
    """Joins the other hosts of the run (`config.distributed`); to be called before JAX touches a device.

    Empty fields leave the choice to `jax.distributed.initialize`, which knows TPU pods, Slurm and Open MPI.
    """
    if not config.enabled:
        return
    jax.distributed.initialize(
        coordinator_address=config.coordinator or None,
        num_processes=config.num_processes or None,
        process_id=config.process_id if config.process_id >= 0 else None,
    )
    # The first collective connects the hosts, and Gloo (on CPUs) waits only 30 s for the last of them: here, where
    # they are in step, and not after each has opened its data and made its model.
    multihost_utils.sync_global_devices("start")


def create_mesh() -> Mesh:
    """Returns the mesh ("data",) over all devices."""
    # Auto axes: with Explicit ones, the default, optax's integer cross-entropy has no gradient on jax 0.12.
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of a batch spread over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def put_batch(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Makes global arrays [B, ...] from this process's rows [B / processes, ...]."""
    sharding = batch_sharding(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()}


def check_batch_size(key: str, batch_size: int, microbatches: int = 1) -> None:
    """Raises UserError where `batch_size` (the value of config key `key`) does not fill the devices evenly."""
    parts = jax.device_count() * microbatches
    if batch_size % parts:
        made_of = f"{jax.device_count()} devices" + (
            f" x {microbatches} microbatches" if microbatches > 1 else ""
        )
        lower = batch_size // parts * parts
        near = f"{lower} or {lower + parts}" if lower else f"{parts}"
        raise UserError(f"{key} = {batch_size} does not divide among {made_of}; use {near}")
