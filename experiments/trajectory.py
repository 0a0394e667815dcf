"""Trains with this code and with PyTorch from the same weights on the same batches, and follows how they part.

    python -m experiments.trajectory [--steps 300] [--tasks classification,segmentation]

Both tasks' official recipes, in float32, without dropout and drop path: RMSpropTF as timm has it for classification,
torch's AdamW for segmentation; PyTorch's cross-entropy and mmseg's resize. Both sides get the batches of this code's
pipeline after augmentation. The data is `shapes`, images and batches are small and the schedules are compressed to
the steps, so that two CPU cores can do it.

The control is PyTorch against itself: its weights start one rounding error apart (a random last bit). Where our
distance to PyTorch is that of the control, rounding explains it.

Writes experiments/results/trajectory.json, .md and the plot (.png). A task that is in the JSON already is kept.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import torch
from flax import nnx
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from configs import ade20k, imagenet
from convert import torch_model, torch_segmentation, weights
from experiments import measure, torch_training
from seaformer_jax import tasks
from seaformer_jax.losses import pixel_cross_entropy, soft_cross_entropy
from seaformer_jax.models.variables import split_model
from seaformer_jax.training import optim, state
from seaformer_jax.training.step import make_train_step

NAME, MODEL = "trajectory", "seaformer_tiny"
MEASURED = (1, 2, 5, 10, 20, 50, 100, 150, 200, 250, 300)  # Steps after which the weights are compared.
_LAST_BIT = 2.0**-23


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
    draw(results)
    (measure.RESULTS / f"{NAME}.md").write_text(text := markdown(results))
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
    return {**losses, "distances": rows, "batch": config.batch_size}


def prepared(task: str, owner: tasks.Task, config: ConfigDict) -> Iterator[dict[str, np.ndarray]]:
    """Yields the batches after augmentation: `image` [B, H, W, 3] and `target` [B, classes] or `label` [B, H, W]."""
    for step, batch in enumerate(owner.train_batches(0)):
        if task == "classification":
            key = jax.random.fold_in(jax.random.key(config.seed), step)
            images, targets, _ = _augmented(owner)(batch, key)
            yield {"image": np.asarray(images), "target": np.asarray(targets)}
        else:
            yield {"image": np.asarray(owner.training_images(batch)), "label": np.asarray(batch["label"])}


class OurSide:
    """This code's training step."""

    def __init__(self, model: nnx.Module, loss: Callable, optimizer: Any):
        self.model = model
        self.state = state.create(model, optimizer, use_ema=False)
        step = make_train_step(nnx.graphdef(model), loss, optimizer, seed=0, ema_decay=0.0)
        self._step = jax.jit(step, donate_argnums=0)

    def step(self, batch: dict[str, np.ndarray], rate: float) -> float:
        """Trains on a batch and returns its loss; the optimiser computes the learning rate itself."""
        self.state, metrics = self._step(self.state, batch)
        return float(metrics["loss"])

    def weights(self) -> dict[str, np.ndarray]:
        graphdef = nnx.graphdef(self.model)
        return weights.to_torch(nnx.merge(graphdef, self.state.params, self.state.batch_stats))


def our_side(model: nnx.Module, owner: tasks.Task, config: ConfigDict) -> tuple[OurSide, Callable]:
    """Returns this code's side and its schedule of learning rates."""

    def loss(model: nnx.Module, batch: dict, key: jax.Array) -> tuple[jax.Array, dict]:
        logits = model(batch["image"], train=True)
        if "target" in batch:
            return soft_cross_entropy(logits, batch["target"]).mean(), {}
        sums = pixel_cross_entropy(logits, batch["label"])
        return sums.loss / owner.divisor(sums, batch), {}

    optimizer, schedule = optim.create(config.optim, config.total_steps, split_model(model)[0])
    return OurSide(model, loss, optimizer), schedule


class TheirSide:
    """The mirror's training step in PyTorch."""

    def __init__(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, loss: Callable):
        self.model, self.optimizer, self.loss = model.train(), optimizer, loss

    def step(self, batch: dict[str, np.ndarray], rate: float) -> float:
        """Trains on a batch with a learning rate and returns its loss."""
        tensors = {name: torch.tensor(value) for name, value in batch.items()}
        if "label" in tensors:
            tensors["label"] = tensors["label"].long()
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("factor", 1.0)
        self.optimizer.zero_grad()
        loss = self.loss(self.model(tensors["image"].permute(0, 3, 1, 2)), tensors)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def weights(self) -> dict[str, np.ndarray]:
        return {name: value.numpy().copy() for name, value in self.model.state_dict().items()}


def their_side(task: str, start: dict[str, np.ndarray], classes: int, config: ConfigDict) -> TheirSide:
    """Returns PyTorch's side with the weights `start`."""
    torch.set_num_threads(measure.cores())
    o = config.optim
    if task == "classification":
        model = torch_model.create_model(MODEL, classes, drop_path_rate=0.0)
        groups = torch_training.classification_groups(model, o.weight_decay)
        optimizer = torch_training.RMSpropTF(
            groups, lr=o.lr, alpha=o.rms_decay, eps=o.eps, momentum=o.momentum
        )
        loss = torch_training.classification_loss
    else:
        model = torch_segmentation.create_model(MODEL, classes, drop_path_rate=0.0)
        model.decode_head.dropout.p = 0.0
        groups = torch_training.segmentation_groups(model, o.weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=o.lr, betas=(o.b1, o.b2), eps=o.eps)
        loss = torch_training.segmentation_loss
    model.load_state_dict({name: torch.tensor(value) for name, value in start.items()})
    return TheirSide(model, optimizer, loss)


def nudged(start: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the weights with their last bit changed at random."""
    rng = np.random.default_rng(0)
    return {
        name: value * (1 + _LAST_BIT * rng.integers(-1, 2, value.shape)).astype(value.dtype)
        if value.dtype == np.float32
        else value
        for name, value in start.items()
    }


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


def markdown(results: dict[str, Any]) -> str:
    parts = [
        "# Training side by side with PyTorch",
        f"`python -m experiments.{NAME}` on {measure.machine()['cpu']}: `{MODEL}`, float32, the same "
        "weights, the same augmented batches of `shapes`, the official optimisers. Distances are L2, as "
        "a share of what PyTorch's weights have moved since the start. The control is PyTorch against "
        "PyTorch from weights that differ in the last bit.",
        f"![losses and distances]({NAME}.png)",
    ]
    for task, found in results.items():
        ours, theirs, control = (np.array(found[name]) for name in ("ours", "pytorch", "control"))
        rows = []
        for row in found["distances"]:
            last = slice(max(0, row["step"] - 10), row["step"])
            rows.append(
                {
                    "step": row["step"],
                    "loss": float(theirs[last].mean()),
                    "loss, ours - PyTorch": float(np.abs(ours - theirs)[last].mean()),
                    "loss, control - PyTorch": float(np.abs(control - theirs)[last].mean()),
                    **{key: value for key, value in row.items() if key != "step"},
                }
            )
        title = f"## {task}: {len(ours)} steps of {found['batch']} images"
        parts += [title, "Losses are means over the last ten steps.", measure.table(rows)]
    return "\n\n".join(parts) + "\n"


def draw(results: dict[str, Any]) -> None:
    """Draws, for each task, the losses of both sides and the distances on a logarithmic axis."""
    figure = Figure(figsize=(11, 3.6 * len(results)), layout="constrained")
    for axes, (task, found) in zip(
        figure.subplots(len(results), 2, squeeze=False), results.items(), strict=True
    ):
        for name, style in (("pytorch", "-"), ("ours", "--")):
            axes[0].plot(found[name], style, label=name, linewidth=1)
        axes[0].set(xlabel="step", ylabel="training loss", title=task)
        steps = [row["step"] for row in found["distances"]]
        for key in found["distances"][0]:
            if key != "step":
                axes[1].plot(steps, [row[key] for row in found["distances"]], marker=".", label=key)
        axes[1].set(xlabel="step", ylabel="distance / way from the start", xscale="log", yscale="log")
        for panel in axes:
            panel.grid(alpha=0.3)
            panel.legend(fontsize=8)
    figure.savefig(measure.RESULTS / f"{NAME}.png", dpi=100)


if __name__ == "__main__":
    main()
