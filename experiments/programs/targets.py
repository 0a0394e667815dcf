"""The chips that programs are compiled for, and meshes of chips that this machine does not have."""

import importlib.util
import math
import os
import pathlib
from typing import NamedTuple

from jax.experimental import topologies
from jax.sharding import Mesh

from seaformer_jax import mesh as meshes

FOLDER = pathlib.Path(__file__).parents[2] / "build" / "aot"  # The compilers of `make aot`.


class Chip(NamedTuple):
    """A kind of chip.

    Attributes:
        platform: JAX's name of the platform.
        bandwidth: Bandwidth of its main memory, bytes per second.
        memory: Size of its main memory, bytes.
        source: Where the manufacturer says so.
    """

    platform: str
    bandwidth: float
    memory: float
    source: str


_DOCS = "https://docs.cloud.google.com/tpu/docs"
# The page on v6e has had 1600 and 1640 GB/s; the larger one keeps the bounds on the speed upper bounds.
CHIPS = {
    "v5e": Chip("tpu", 819e9, 16e9, f"{_DOCS}/v5e"),
    "v6e": Chip("tpu", 1640e9, 32e9, f"{_DOCS}/v6e"),
    "v5p": Chip("tpu", 2765e9, 95e9, f"{_DOCS}/v5p"),
    "h100": Chip("cuda", 3350e9, 80e9, "https://www.nvidia.com/en-us/data-center/h100/"),
}

# What XLA asks the driver about an H100 SXM otherwise: a GpuTargetConfigProto.
_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: 84978434048
  cuda_compute_capability { major: 9 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


class Target(NamedTuple):
    """Chips to compile for.

    Attributes:
        chip: Name in `CHIPS`.
        shape: Shape of the slice, such as "2x2"; for GPUs their number.
        used: How many of its chips the mesh has; 0 means all. The smallest TPU slice has four.
    """

    chip: str
    shape: str
    used: int = 0

    @property
    def name(self) -> str:
        """For example "v5e:2x2", "h100:8" or "1 of v5e:2x2"."""
        whole = f"{self.chip}:{self.shape}"
        return f"{self.used} of {whole}" if self.used else whole

    @property
    def size(self) -> int:
        """Number of chips of the mesh."""
        return self.used or math.prod(int(side) for side in self.shape.split("x"))

    def mesh(self) -> Mesh:
        """Returns a mesh over the chips; needs the environment of `environment`."""
        if CHIPS[self.chip].platform == "tpu":
            found = topologies.get_topology_desc(platform="tpu", topology_name=f"{self.chip}:{self.shape}")
        else:
            # Partitions x hosts x devices of a host. The name has no meaning.
            shape = f"1x1x{self.shape}"
            found = topologies.get_topology_desc(
                platform="cuda", topology_name="gpus", topology=shape, target_config=_H100
            )
        return meshes.create_mesh(found.devices[: self.used or None])


def environment(platform: str) -> dict[str, str]:
    """Returns the environment of a process that compiles for `platform`, "tpu" or "cuda".

    The compilers have a folder of their own. With libtpu in the environment of all commands, JAX would look for a TPU
    in every process: warnings on stderr, and a lock that one process at a time can have.
    """
    paths = [str(FOLDER / platform), os.environ.get("PYTHONPATH", "")]
    common = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    if platform == "tpu":
        # No question to Google's metadata server, and no lock: nothing is run.
        return os.environ | common | {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    # Without a GPU no kernel can be timed, and the Triton products cannot be compiled untimed.
    return (
        os.environ | common | {"XLA_FLAGS": "--xla_gpu_enable_triton_gemm=false --xla_gpu_autotune_level=0"}
    )


def installed(platform: str) -> bool:
    """Returns whether the compiler for `platform` is in build/aot or in the environment."""
    package = {"tpu": "libtpu", "cuda": "jax_cuda13_plugin"}[platform]
    return (FOLDER / platform / package).exists() or importlib.util.find_spec(package) is not None
