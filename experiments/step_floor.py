"""The least time of a step by its memory traffic: the bytes that it moves, and the bandwidth of the device.

SeaFormer is bound by memory: its arithmetic alone would take a twentieth of the time. So the bytes of a step over the
bandwidth of a large copy are a floor for its time.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np

from experiments.programs import hlo, traffic

_COPIES, _ROUNDS = 10, 5


def bytes_moved(compiled: jax.stages.Compiled) -> int:
    """Returns the bytes that a compiled program reads from and writes to main memory, by `experiments.programs`.

    XLA's own count has on-chip memory in it, and there is none on GPUs.
    """
    return sum(cost.padded for cost in traffic.costs(hlo.parse(compiled.as_text())))


def bandwidth(megabytes: int = 1024) -> float:
    """Returns the device's bandwidth in bytes per second, read plus written, by copying a large array.

    Args:
        megabytes: Size of the array. It must be far larger than the caches.
    """
    copy = jax.jit(lambda x: x + 1, donate_argnums=0)
    x = jax.block_until_ready(copy(jnp.zeros((megabytes, 1 << 18), jnp.float32)))  # Compiles.
    seconds = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        for _ in range(_COPIES):
            x = copy(x)  # Returns at once, so that the host's share of the time is small.
        jax.block_until_ready(x)
        seconds.append((time.perf_counter() - began) / _COPIES)
    return 2 * x.nbytes / float(np.median(seconds))
