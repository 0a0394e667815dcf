"""Measures the training step of every size against the PyTorch model with the same weights.

    python -m experiments.train_speed [--task segmentation] [--models tiny,small] [--batch 16] [--size 224]

A step takes the same normalised images and labels on both sides and consists of forward pass, cross-entropy (in
segmentation after up-sampling the logits to the labels' size), backward pass and AdamW. Our side is the jitted step
of `training/step.py`. PyTorch's side is the model of `convert/`. On a CPU it runs in channels_last and also in the
default layout, which is how the official code runs; on a GPU it runs in channels_last under autocast to bfloat16 and
`torch.compile`, with CUDA graphs and a fused AdamW. Neither side averages its weights. Each side has its own process,
and the processes take turns (`measure.in_turn`). Ratios are ratios of the medians.

On a GPU a run is ten steps, after which it waits for the device: training does not wait at every step either. The
table has a share of the memory-bandwidth floor. The floor is the bytes that our step moves, divided by the measured
bandwidth of a large copy (`step_floor.py`); the share is the floor divided by the time of the step.

Prints a table and writes experiments/results/train_speed_<task>_<backend>.json. On a CPU set
GLIBC_TUNABLES=glibc.malloc.hugetlb=1 in the environment, as for training.
"""

import argparse
import functools

import jax

from convert import weights
from experiments import measure, sides
from seaformer_jax.models.registry import create_model

GPU_STEPS = 10  # Steps of a run on a GPU.
DEFAULTS = {"classification": (16, 224), "segmentation": (2, 512)}  # Images, and pixels along a side.


def compare(name: str, task: str, batch: int, size: int, rounds: int) -> dict:
    """Measures one model; returns its row of the table."""
    state_dict = weights.to_torch(create_model(name, task, num_classes=sides.CLASSES[task]))
    gpu, cores = sides.on_gpu(), measure.cores()
    steps = GPU_STEPS if gpu else 1
    theirs = functools.partial(
        sides.their_step, name, task, batch, size, state_dict, cores=cores, gpu=gpu, steps=steps
    )
    layouts = ("channels_last",) if gpu else ("channels_last", "contiguous_format")
    both = {"jax": functools.partial(sides.our_step, name, task, batch, size, steps)}
    both |= {layout: functools.partial(theirs, memory_format=layout) for layout in layouts}
    results = measure.in_turn(both, rounds)
    row = {"model": name, "batch": batch, "size": size}
    row |= {f"{side}_images_per_second": batch * steps / results[side].seconds for side in both}
    row |= {f"over_{layout}": results[layout].seconds / results["jax"].seconds for layout in layouts}
    if gpu:
        row["share_of_bandwidth_floor"] = (
            steps * results["jax"].facts["floor_seconds"] / results["jax"].seconds
        )
    else:
        row |= {f"{side}_peak_gb": results[side].peak_bytes / 1e9 for side in both}
    return row


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
    names = [f"seaformer_{model}" for model in options.models.split(",")]
    rows = [compare(name, options.task, batch, size, options.rounds) for name in names]
    measure.print_table(rows)
    measure.write(f"train_speed_{options.task}_{jax.default_backend()}", {"rows": rows})


if __name__ == "__main__":
    main()
