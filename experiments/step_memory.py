"""Measures where the CPU seconds of a training step go: to the program, or to the kernel that hands out memory.

    python -m experiments.step_memory [--task segmentation] [--models tiny,small] [--batch 16] [--size 224]

XLA allocates the temporaries of a step as one block and frees it after the step. By default glibc returns a block of
that size to the kernel, which clears every page of the next one. With the settings `KEPT` it stays in the process.
Both sides, our step and PyTorch's (see `train_speed.py`), are measured under both settings.

Each side runs on one core, and its CPU seconds count, not the time on the clock. So other programs on the machine
disturb the figures less. How well a side uses several cores is no part of them.

`floor_ms` is a bound for `user_ms`: the products of forward and backward pass at the rate of a large product, plus
seven float32 passes over the outputs before BatchNorm (see `programs/floor.py`) at the rate of a large copy. Prints a
table and writes experiments/results/step_memory_<task>_cpu.json.
"""

import argparse
import functools
import os
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from convert import weights
from experiments import measure, sides
from experiments.programs import floor
from experiments.train_speed import DEFAULTS
from seaformer_jax.models.macs import count_macs
from seaformer_jax.models.registry import create_model

RETURNED = "glibc.malloc.hugetlb=1"
KEPT = f"{RETURNED}:glibc.malloc.arena_max=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184"
_SIDE, _COPIED = 1024, 1 << 26  # Rows of the large product; values of the large copy.
_PRODUCTS = 3  # The forward product, the gradient of the input, and that of the kernel.
_PASSES_BYTES = 4 * floor.PASSES


def rates():
    """Returns a function without work, and the rates of one core: operations and bytes per CPU second."""
    x, long = jnp.ones((_SIDE, _SIDE)), jnp.ones(_COPIED)
    product = jax.jit(jnp.matmul).lower(x, x).compile()
    copy = jax.jit(lambda x: x + 1, donate_argnums=0).lower(long).compile()

    def copied() -> None:
        nonlocal long
        long = copy(long).block_until_ready()

    operations = 2 * _SIDE**3 / _least_cpu_seconds(lambda: product(x, x).block_until_ready())
    return lambda: None, {
        "operations": operations,
        "bytes": 2 * 4 * _COPIED / _least_cpu_seconds(copied),
    }


def _least_cpu_seconds(run: Callable[[], object]) -> float:
    def once() -> float:
        began = time.process_time()
        run()
        return time.process_time() - began

    return min(once() for _ in range(20))


def floor_seconds(name: str, task: str, batch: int, size: int, rate: dict[str, float]) -> float:
    """Returns the least user seconds of a step on one core, see above."""

    def model():
        return create_model(name, task, num_classes=sides.CLASSES[task])

    operations = 2 * _PRODUCTS * count_macs(model(), size, size).total
    moved = _PASSES_BYTES * floor.outputs_before_batch_norm(model(), size, size)
    return batch * (operations / rate["operations"] + moved / rate["bytes"])


def compare(name: str, task: str, batch: int, size: int, rounds: int, rate: dict[str, float]) -> list[dict]:
    """Measures one model; returns a row of the table for each setting of glibc."""
    state_dict = weights.to_torch(create_model(name, task, num_classes=sides.CLASSES[task]))
    both = {
        "jax": functools.partial(sides.our_step, name, task, batch, size),
        "channels_last": functools.partial(
            sides.their_step, name, task, batch, size, state_dict, "channels_last", cores=1
        ),
    }
    rows = []
    for memory, tunables in (("returned", RETURNED), ("kept", KEPT)):
        os.environ["GLIBC_TUNABLES"] = tunables  # The processes of the sides read it when they start.
        results = measure.in_turn(both, rounds)
        row = {"model": name, "batch": batch, "size": size, "memory": memory}
        for side, result in results.items():
            row |= {
                f"{side}_user_ms": 1e3 * result.user_seconds,
                f"{side}_kernel_ms": 1e3 * result.kernel_seconds,
            }
        ours, theirs = (result.user_seconds + result.kernel_seconds for result in results.values())
        row |= {
            "over_channels_last": theirs / ours,
            "floor_ms": 1e3 * floor_seconds(name, task, batch, size, rate),
        }
        rows.append(row | {f"{side}_peak_gb": result.peak_bytes / 1e9 for side, result in results.items()})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=DEFAULTS, default="classification")
    parser.add_argument("--models", default="tiny,small,base,large")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--size", type=int)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    batch, size = DEFAULTS[options.task]
    batch, size = options.batch or batch, options.size or size
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])  # The processes of the sides inherit it.
    rate = measure.in_turn({"rates": rates}, rounds=1)["rates"].facts
    rows = []
    for model in options.models.split(","):
        rows += compare(f"seaformer_{model}", options.task, batch, size, options.rounds, rate)
    measure.print_table(rows)
    measure.write(f"step_memory_{options.task}_cpu", {"rates": rate, "rows": rows})


if __name__ == "__main__":
    main()
