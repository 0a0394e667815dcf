"""Trains SeaFormer-Tiny from scratch on TrashNet: killed half-way, resumed, evaluated in JAX and in PyTorch.

    python -m experiments.trashnet --root PATH/TO/trashnet [--out runs/trashnet]

Runs each documented command in its own process: `train` with `configs/trashnet.py:tiny`, killed with SIGKILL when
half of the steps are done, `train` again to the end, `evaluate`, `convert.to_torch`. Then PyTorch evaluates the
converted `.pth` on the same crops. Writes experiments/results/trashnet.json, .md and the curve, trashnet.png.
"""

import argparse
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import torch
from matplotlib.figure import Figure

from convert import torch_model
from convert.checkpoints import files
from experiments import measure, runs
from seaformer_jax.data.classification import sources
from seaformer_jax.data.classification.transforms import EvalTransform
from seaformer_jax.training import workdir

CONFIG = "configs/trashnet.py:tiny"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/trashnet"))
    options = parser.parse_args()
    run = options.out
    train = [
        "seaformer_jax.train",
        f"--config={CONFIG}",
        f"--workdir={run}",
        f"--config.data.root={options.root}",
    ]
    began = time.monotonic()
    killed_at = train_until_half(train, run)
    runs.call(*train)
    minutes = (time.monotonic() - began) / 60
    runs.call("seaformer_jax.evaluate", f"--workdir={run}")
    runs.call("convert.to_torch", f"--workdir={run}", f"--out={run}/model.pth")
    write_results(run, killed_at, minutes)


def train_until_half(train: list[str], run: pathlib.Path) -> int:
    """Starts training and kills it after half of the steps; returns the last step that it logged."""
    process = subprocess.Popen([sys.executable, "-m", *train])
    while process.poll() is None:
        time.sleep(1)
        steps = [row["step"] for row in runs.curve(run)]
        if steps and 2 * max(steps) > workdir.read(run)[0].total_steps:
            process.send_signal(signal.SIGKILL)
            process.wait()
            print(f"killed at step {max(steps)} or soon after", flush=True)
            return max(steps)
    sys.exit("the training ended before it could be killed")


def torch_top1(run: pathlib.Path) -> float:
    """Returns PyTorch's top-1 in percent, with the converted weights, on the crops that `evaluate` uses."""
    config, class_names = workdir.read(run)
    source = sources.create(config.data, "val")
    transform = EvalTransform(config.data.image_size, config.eval.crop_fraction, config.eval.interpolation)
    model = torch_model.create_model(config.model.name, num_classes=len(class_names)).eval()
    weights = files.read_state_dict(run / "model.pth")
    model.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
    mean, std = np.float32(config.data.mean), np.float32(config.data.std)
    right = 0
    for index in range(len(source)):
        element = transform.map(source[index])
        image = (element["image"].astype(np.float32) / 255 - mean) / std
        with torch.no_grad():
            logits = model(torch.from_numpy(image.transpose(2, 0, 1)[None].copy()))
        right += int(logits.argmax() == int(element["label"]))
    return 100 * right / len(source)


def write_results(run: pathlib.Path, killed_at: int, minutes: float) -> None:
    """Writes the scores in JAX and PyTorch, the curve and the scores of each class."""
    config, _ = workdir.read(run)
    jax_top1, rows = runs.results(run)["top1"], runs.curve(run)
    figures = {
        "config": CONFIG,
        "seed": config.seed,
        "steps": config.total_steps,
        "killed_after_step": killed_at,
        "training_minutes": round(minutes, 1),
        "val_images": runs.results(run)["images"],
        "jax_top1": jax_top1,
        "torch_top1": torch_top1(run),
        "curve": [
            {"step": row["step"], "top1": row["val/top1"], "top1_last": row["val_last/top1"]}
            for row in rows
            if "val/top1" in row
        ],
    }
    measure.write("trashnet", figures)
    draw(rows, killed_at, measure.RESULTS / "trashnet.png")
    table = "\n".join(
        f"| {point['step']} | {point['top1']:.1f} | {point['top1_last']:.1f} |" for point in figures["curve"]
    )
    per_class = (run / "per_class.md").read_text()
    (measure.RESULTS / "trashnet.md").write_text(
        f"# SeaFormer-Tiny on TrashNet, from scratch\n\n`python -m experiments.trashnet` with `{CONFIG}`, seed "
        f"{config.seed}: {config.total_steps} steps in {minutes:.1f} minutes on {measure.cores()} cores that may "
        f"have had other work, killed with SIGKILL after step {killed_at} and resumed.\n\nTop-1 on the "
        f"{figures['val_images']} validation photos: **{jax_top1:.2f} %** in JAX, **{figures['torch_top1']:.2f} %** "
        "in PyTorch with the converted `.pth`.\n\n![curve](trashnet.png)\n\n| step | val top-1 %, averaged weights | "
        f"last weights |\n|---:|---:|---:|\n{table}\n\n{per_class}"
    )
    print(f"top-1 {jax_top1:.2f} % in JAX, {figures['torch_top1']:.2f} % in PyTorch, {minutes:.1f} minutes")


def draw(rows: list[dict], killed_at: int, path: pathlib.Path) -> None:
    """Draws training and validation accuracy over the steps, and marks where the run was killed."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    for key, factor, label in (
        ("train/accuracy", 100, "training batches"),
        ("val_last/top1", 1, "validation, last weights"),
        ("val/top1", 1, "validation, averaged weights"),
    ):
        points = [(row["step"], factor * row[key]) for row in rows if key in row]
        axes.plot(*zip(*points, strict=True), label=label)
    axes.axvline(killed_at, color="grey", linestyle=":", label="killed and resumed")
    axes.set(xlabel="step", ylabel="top-1 %", ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
