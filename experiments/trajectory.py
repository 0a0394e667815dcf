"""Trains with this code and with PyTorch from the same weights on the same batches, and follows how they part.

    python -m experiments.trajectory [--steps 300] [--tasks classification,segmentation]

Both tasks' official recipes, in float32, without dropout and drop path: RMSpropTF as timm has it for classification,
torch's AdamW for segmentation; PyTorch's cross-entropy and mmseg's resize. Both sides get the batches of this code's
pipeline after augmentation. The data is `shapes`, images and batches are small and the schedules are compressed to
the steps, so that two CPU cores can do it.

The control is PyTorch against itself: its weights start one rounding error apart (a random last bit). Where our
distance to PyTorch is that of the control, rounding explains it. The gradients of the first batch are also compared
with PyTorch's in float64, which tells which side rounds more.

Writes experiments/results/trajectory.json, .md and the plot (.png). A task that is in the JSON already is kept.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import torch
from ml_collections import ConfigDict

from configs import ade20k, imagenet
from convert import weights
from experiments import measure
from experiments import trajectory_report as report
from experiments.trajectory_sides import MODEL, Arrays, Batch, nudged, our_side, their_side, watch_relus
from seaformer_jax import tasks

NAME = "trajectory"
MEASURED = (1, 2, 5, 10, 20, 50, 100, 150, 200, 250, 300)  # Steps after which the weights are compared.


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--tasks", default="classification,segmentation")
    options = parser.parse_args()
    path = measure.RESULTS / f"{NAME}.json"
    results = json.loads(path.read_text())["tasks"] if path.exists() else {}
    for task in options.tasks.split(","):
        if len(results.get(task, {}).get("ours", ())) != options.steps:
            results[task] = compare(task, options.steps)
            measure.write(NAME, {"model": MODEL, "tasks": results})
    report.draw(results, measure.RESULTS / f"{NAME}.png")
    (measure.RESULTS / f"{NAME}.md").write_text(text := report.markdown(results, NAME))
    print(text)


def config_of(task: str, steps: int) -> ConfigDict:
    """Returns the official recipe of a task, made small: data, sizes and periods of the schedule."""
    if task == "classification":
        c = imagenet.get_config("tiny")
        c.update({"batch_size": 16})
        c.data.image_size = 96
        # An epoch is 5 steps here: warm-up for 10, decay every 2.4, noise from 42 % on.
        c.optim.schedule.update({"warmup_steps": 50, "decay_steps": 12.0, "hold_steps": 5})
        c.optim.schedule.noise_from = steps * 42 // 100
    else:
        c = ade20k.get_config("tiny")
        c.update({"batch_size": 4})
        c.data.update({"base_scale": (128, 128), "crop_size": (128, 128)})
        c.optim.schedule.warmup_steps = 50
    c.update({"total_steps": steps, "dtype": "float32"})
    c.data.update({"source": "shapes", "workers": 0})
    c.model.drop_path_rate = 0.0
    return c


def compare(task: str, steps: int) -> dict[str, Any]:
    """Returns the losses of the three sides, and the distances of their weights at some steps."""
    config = config_of(task, steps)
    owner = tasks.create(config)
    model = owner.create_model()
    start = weights.to_torch(model)
    ours, schedule = our_side(model, owner, config)
    theirs = their_side(task, start, owner.num_classes, config)
    control = their_side(task, nudged(start), owner.num_classes, config)
    losses: dict[str, list[float]] = {"ours": [], "pytorch": [], "control": []}
    rows = []
    for step, batch in enumerate(prepared(task, owner, config), start=1):
        rate = float(schedule(step - 1))
        for name, side in (("ours", ours), ("pytorch", theirs), ("control", control)):
            losses[name].append(side.step(batch, rate))
        if step in MEASURED:
            rows.append(
                {"step": step, **distances(ours.weights(), theirs.weights(), control.weights(), start)}
            )
            print(f"{task} {step}/{steps}: {rows[-1]}", flush=True)
        if step == steps:
            break
    return {
        **losses,
        "distances": rows,
        "batch": config.batch_size,
        "gradients": first_gradients(task, config),
    }


def first_gradients(task: str, config: ConfigDict) -> dict[str, dict[str, float]]:
    """Compares the gradients of the first batch with those of PyTorch in float64.

    Returns:
        Side -> "distance" as a share of their norm, and for PyTorch the number of "switched" inputs of ReLUs, which
        rounding puts on the other side of 0 or 6.
    """
    owner = tasks.create(config)
    model = owner.create_model()
    start = weights.to_torch(model)
    batch = next(prepared(task, owner, config))

    def theirs(
        start: Arrays, dtype: torch.dtype, layout: torch.memory_format
    ) -> tuple[Arrays, list[torch.Tensor]]:
        side = their_side(task, start, owner.num_classes, config)
        side.model.to(dtype)
        side.layout = layout
        masks = watch_relus(side.model)
        return side.gradients(batch), masks

    rows, last = torch.contiguous_format, torch.channels_last
    exact, exact_masks = theirs(start, torch.float64, rows)
    size = _norm(exact, dict.fromkeys(exact, 0.0), list(exact))
    ours = our_side(model, owner, config)[0].gradients(batch)
    found = {"ours": {"distance": _norm(ours, exact, list(exact)) / size}}
    for name, side in (
        ("PyTorch", (start, torch.float32, rows)),
        ("PyTorch, last bit of the weights changed", (nudged(start), torch.float32, rows)),
        ("PyTorch, channels last", (start, torch.float32, last)),
    ):
        gradients, masks = theirs(*side)
        switched = sum(int((a != b).sum()) for a, b in zip(masks, exact_masks, strict=True))
        found[name] = {"distance": _norm(gradients, exact, list(exact)) / size, "switched": switched}
    return found


def prepared(task: str, owner: tasks.Task, config: ConfigDict) -> Iterator[Batch]:
    """Yields the batches after augmentation."""
    for step, batch in enumerate(owner.train_batches(0)):
        if task == "classification":
            key = jax.random.fold_in(jax.random.key(config.seed), step)
            images, targets, _ = _augmented(owner)(batch, key)
            yield {"image": np.asarray(images), "target": np.asarray(targets)}
        else:
            yield {"image": np.asarray(owner.training_images(batch)), "label": np.asarray(batch["label"])}


def distances(ours: dict, theirs: dict, control: dict, start: dict) -> dict[str, float]:
    """Returns the distance to PyTorch of ours and of the control, as a share of what PyTorch has moved."""

    def part(name: str) -> str:
        return "statistics" if ".running_" in name else "parameters"

    found = {}
    for kind in ("parameters", "statistics"):
        names = [name for name in start if part(name) == kind and not name.endswith("num_batches_tracked")]
        moved = _norm(theirs, start, names)
        found |= {
            f"{kind}, ours": _norm(ours, theirs, names) / moved,
            f"{kind}, control": _norm(control, theirs, names) / moved,
        }
    return found


def _norm(a: dict, b: dict, names: list[str]) -> float:
    return float(np.sqrt(sum(np.square(a[name].astype(np.float64) - b[name]).sum() for name in names)))


def _augmented(owner: tasks.Task) -> Callable:
    """Returns the compiled augmentation of a task."""
    if not hasattr(owner, "compiled_augmentation"):
        owner.compiled_augmentation = jax.jit(owner.training_images)
    return owner.compiled_augmentation


if __name__ == "__main__":
    main()
