"""Compares a distillation step with its parts: the teacher's forward pass and the student's own training step.

    python -m experiments.distillation_speed [--batch 8] [--rounds 15]

The recipe is `configs/distill_camvid.py:tiny` with all terms; the teacher has the same size and fresh weights. The
student's own step is the same step with the weights of all terms at 0. Each runs in its own process, and the
processes take turns. The target is at most teacher + 1.15 x student. On a CPU set
GLIBC_TUNABLES=glibc.malloc.hugetlb=1 in the environment, as for training. Prints a table and writes
experiments/results/distillation_speed_<backend>.json.
"""

import argparse
import functools

import jax
import numpy as np
from flax import nnx

from configs import distill_camvid
from experiments import measure
from seaformer_jax import create_model, tasks
from seaformer_jax.data.segmentation import label_sets
from seaformer_jax.models.variables import split_model
from seaformer_jax.training import optim
from seaformer_jax.training import state as states
from seaformer_jax.training.step import make_train_step

SHARE = 1.15  # Target: (distillation step - teacher's forward pass) / student's own step, at most.
TERMS = ("cross", "feature", "output")


def task(batch: int, *, distil: bool):
    """Returns the recipe's task with a teacher, and a batch of noise for it.

    Args:
        batch: Images.
        distil: Whether the distillation terms have weight 1; otherwise 0.
    """
    config = distill_camvid.get_config("tiny")
    config.batch_size = batch
    for term in TERMS:
        config.distillation[f"{term}_weight"] = float(distil)
    distilled = tasks.create(config, label_sets.camvid().class_names)
    distilled = distilled.with_teacher(
        create_model("seaformer_tiny", "segmentation", num_classes=distilled.num_classes)
    )
    rng = np.random.default_rng(0)
    height, width = config.data.crop_size
    images = rng.integers(0, 256, (batch, height, width, 3), np.uint8)
    labels = rng.integers(0, distilled.num_classes, (batch, height, width), np.uint8)
    size = np.tile(np.int32([height, width]), (batch, 1))
    return distilled, jax.device_put({"image": images, "label": labels, "size": size})


def training(batch: int, *, distil: bool):
    """Returns (a function that runs a training step and waits for it, facts for the table)."""
    distilled, data = task(batch, distil=distil)
    model = distilled.create_model()
    config = distilled.config
    params, _ = split_model(model)
    optimizer, _ = optim.create(config.optim, config.total_steps, params)
    state = states.create(model, optimizer, use_ema=config.optim.ema_decay > 0)
    step = make_train_step(
        nnx.graphdef(model), distilled.loss, optimizer, seed=0, ema_decay=config.optim.ema_decay
    )
    constants = distilled.constants()  # The teacher's weights.
    compiled = jax.jit(step, donate_argnums=0).lower(state, data, constants).compile()

    def run():
        nonlocal state
        state, metrics = compiled(state, data, constants)
        return float(metrics["loss"])

    return run, {"temporary_mb": compiled.memory_analysis().temp_size_in_bytes / 1e6}


def teaching(batch: int):
    """Returns (a function that runs the teacher on the same images, to its features and logits, no facts)."""
    distilled, data = task(batch, distil=True)
    graphdef, weights = nnx.split(
        create_model("seaformer_tiny", "segmentation", num_classes=distilled.num_classes)
    )

    def forward(weights, batch):
        model = nnx.merge(graphdef, weights)
        features = model.features(distilled.training_images(batch))
        return features, model.classify(features)

    compiled = jax.jit(forward).lower(weights, data).compile()
    return lambda: jax.block_until_ready(compiled(weights, data)), {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    sides = {
        "teacher, forward": functools.partial(teaching, options.batch),
        "student, training step": functools.partial(training, options.batch, distil=False),
        "distillation step": functools.partial(training, options.batch, distil=True),
    }
    measured = measure.in_turn(sides, options.rounds)
    teacher, student, both = (measured[name].seconds for name in sides)
    rows = [{"what": name, "ms": 1e3 * side.seconds, **side.facts} for name, side in measured.items()]
    # The rest of the step after the teacher's forward pass, relative to plain training.
    share = (both - teacher) / student
    measure.print_table([{"what": row["what"], "ms": row["ms"]} for row in rows])
    print(
        f"without its teacher's pass, the step takes {share:.2f} of the student's own; target at most {SHARE}"
    )
    measure.write(
        f"distillation_speed_{jax.default_backend()}",
        {"batch": options.batch, "rows": rows, "student_share": share, "target": SHARE},
    )


if __name__ == "__main__":
    main()
