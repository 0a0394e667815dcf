"""Trains a SeaFormer-Tiny detector on BCCD (blood cells), from a segmentation model's weights and from scratch.

    python -m experiments.bccd --root PATH/TO/bccd [--out runs/bccd] [--starts pretrained,scratch]

Trains `configs/bccd.py:tiny` once for each start with the documented command and evaluates with `--show-dir`;
finished runs are not repeated. Writes experiments/results/bccd.json, .md, the curves (bccd.png) and, of the first
start that is asked for, images with labelled and predicted boxes (bccd_images.jpg). A start that is not asked for
keeps its figures there.
"""

import argparse
import json
import pathlib

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from experiments import measure, runs
from seaformer_jax.training import workdir

CONFIG = "configs/bccd.py:tiny"
IMAGES = (3, 40, 80)  # Indices among the 87 validation images.
STARTS = {"pretrained": (), "scratch": ("--config.init_from=",)}
SCORES = ("AP", "AP50", "AP75")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/bccd"))
    parser.add_argument("--starts", default=",".join(STARTS))
    options = parser.parse_args()
    workdirs = {}
    for start in options.starts.split(","):
        run = options.out.with_name(options.out.name + ("" if start == "pretrained" else f"_{start}"))
        workdirs[start] = train(run, f"--config.data.root={options.root}", *STARTS[start])
    write_results(workdirs)


def train(run: pathlib.Path, *flags: str) -> pathlib.Path:
    """Trains and evaluates in the workdir `run`; returns the workdir."""
    runs.only_train(run, CONFIG, *flags)
    if not (run / "boxes").exists():
        runs.call("seaformer_jax.evaluate", f"--workdir={run}", f"--show-dir={run}/boxes")
    return run


def figures_of(run: pathlib.Path) -> dict:
    """Returns the scores of a run, how it was trained, and its curve of (step, AP, AP50)."""
    config, _ = workdir.read(run)
    scores, rows = runs.results(run), runs.curve(run)
    return {
        "steps": scores["step"],
        "of_steps": config.total_steps,
        "minutes": round(runs.minutes(run), 1),
        **{name: round(scores[name], 2) for name in SCORES},
        "curve": [
            (row["step"], round(row["val/AP"], 2), round(row["val/AP50"], 2))
            for row in rows
            if "val/AP" in row
        ],
    }


def write_results(workdirs: dict[str, pathlib.Path]) -> None:
    """Writes the figures of all runs, their curves, and images and class scores of the first of `workdirs`."""
    first = next(iter(workdirs.values()))
    config, _ = workdir.read(first)
    path = measure.RESULTS / "bccd.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    known |= {start: figures_of(run) for start, run in workdirs.items()}
    figures = {start: known[start] for start in STARTS if start in known}
    setting = {
        "config": CONFIG,
        "seed": config.seed,
        "batch": config.batch_size,
        "scale": config.data.scale,
        "neck_width": config.model.neck_width,
        "tower_convs": config.model.tower_convs,
    }
    measure.write("bccd", {**setting, **figures})
    draw(figures, measure.RESULTS / "bccd.png")
    join_images(first / "boxes", measure.RESULTS / "bccd_images.jpg")
    table = "\n".join(
        f"| {start} | **{f['AP50']}** | **{f['AP']}** | {f['AP75']} | {f['steps']} of {f['of_steps']} "
        f"| {f['minutes']} |"
        for start, f in figures.items()
    )
    lines = [
        "# A SeaFormer-Tiny detector on BCCD",
        f"`python -m experiments.bccd`: `{CONFIG}`, seed {config.seed}, batches of {config.batch_size} images of "
        f"{config.data.scale[0]}x{config.data.scale[1]}, neck and head of {config.model.neck_width} channels, on "
        f"{measure.cores()} cores that had other work, so the minutes say little; 87 validation images. A run that "
        "was ended early has not come to the end of its learning rates: compare it at the same step of the curves.",
        f"| start | AP50 % | AP % | AP75 % | steps | minutes |\n|---|---:|---:|---:|---:|---:|\n{table}",
        "![curves](bccd.png)",
        "Labelled boxes on the left, predicted ones on the right:\n\n![images](bccd_images.jpg)",
        f"Classes of the run `{next(iter(workdirs))}`:\n\n" + (first / "per_class.md").read_text(),
    ]
    (measure.RESULTS / "bccd.md").write_text("\n\n".join(lines))
    measure.print_table([{"start": start, "AP50": f["AP50"], "AP": f["AP"]} for start, f in figures.items()])


def draw(figures: dict[str, dict], path: pathlib.Path) -> None:
    """Draws the validation AP50 and AP of the runs over the steps."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    for number, (start, run) in enumerate(figures.items()):
        steps, ap, ap50 = zip(*run["curve"], strict=True)
        axes.plot(steps, ap50, marker=".", color=f"C{number}", label=f"{start}, AP50")
        axes.plot(steps, ap, marker=".", color=f"C{number}", linestyle="--", label=f"{start}, AP")
    for aim in (80, 45):
        axes.axhline(aim, color="grey", linestyle=":")
    axes.set(xlabel="step", ylabel="validation, %", ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=100)


def join_images(folder: pathlib.Path, path: pathlib.Path) -> None:
    """Stacks the pictures of IMAGES into one, a JPEG so that the repository stays small."""
    pictures = [np.asarray(Image.open(folder / f"{index:05}.png").convert("RGB")) for index in IMAGES]
    joined = Image.fromarray(np.concatenate(pictures))
    joined.resize((joined.width * 3 // 4, joined.height * 3 // 4)).save(path, quality=80)


if __name__ == "__main__":
    main()
