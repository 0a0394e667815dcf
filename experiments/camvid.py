"""Trains SeaFormer-Tiny on CamVid, from a classifier's weights and from scratch.

    python -m experiments.camvid --root PATH/TO/camvid --init runs/trashnet [--out runs/camvid]

Trains `configs/camvid.py:tiny` twice with the documented command, one run after the other, and evaluates both with
`--show-dir`; finished runs are not repeated. Writes experiments/results/camvid.json, .md, the curves (camvid.png) and
frames with labels and predictions (camvid_frames.jpg).
"""

import argparse
import pathlib

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from experiments import measure, runs
from seaformer_jax.training import workdir

CONFIG = "configs/camvid.py:tiny"
FRAMES = (5, 40, 75)  # Indices among the 101 validation frames: one from each part of the drive.


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True)
    parser.add_argument("--init", required=True, help="workdir or checkpoint of a classifier")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/camvid"))
    options = parser.parse_args()
    workdirs = {
        "pretrained": train(options.out, options.root, f"--config.init_from={options.init}"),
        "scratch": train(options.out.with_name(f"{options.out.name}_scratch"), options.root),
    }
    write_results(workdirs)


def train(run: pathlib.Path, root: str, *more: str) -> pathlib.Path:
    """Trains and evaluates in the workdir `run`, with `more` flags; returns the workdir."""
    runs.train(run, CONFIG, f"--config.data.root={root}", *more)
    if not (run / "frames").exists():
        runs.call("seaformer_jax.evaluate", f"--workdir={run}", f"--show-dir={run}/frames")
    return run


def write_results(workdirs: dict[str, pathlib.Path]) -> None:
    """Writes the figures of both runs, their curves, and frames and class scores of the pretrained one."""
    config, _ = workdir.read(workdirs["pretrained"])
    rows = {name: runs.curve(run) for name, run in workdirs.items()}
    figures = {
        name: {
            "minutes": round(runs.minutes(run), 1),
            **{key: round(runs.results(run)[key], 2) for key in ("mIoU", "mAcc", "aAcc")},
            "curve": [(row["step"], round(row["val/mIoU"], 2)) for row in rows[name] if "val/mIoU" in row],
        }
        for name, run in workdirs.items()
    }
    setting = {
        "config": CONFIG,
        "seed": config.seed,
        "steps": config.total_steps,
        "batch": config.batch_size,
        "crop": config.data.crop_size,
        "test": config.eval.scale,
    }
    measure.write("camvid", {**setting, **figures})
    draw(figures, measure.RESULTS / "camvid.png")
    join_frames(workdirs["pretrained"] / "frames", measure.RESULTS / "camvid_frames.jpg")
    crop = config.data.crop_size
    lines = [
        "# SeaFormer-Tiny on CamVid",
        f"`python -m experiments.camvid`: `{CONFIG}`, seed {config.seed}, {config.total_steps} steps of "
        f"{config.batch_size} crops of {crop[0]}x{crop[1]} on {measure.cores()} cores; "
        "validation on whole frames of 360x480.",
        "| start | mIoU % | mAcc % | aAcc % | minutes |\n|---|---:|---:|---:|---:|\n"
        + "\n".join(
            f"| {name} | **{f['mIoU']}** | {f['mAcc']} | {f['aAcc']} | {f['minutes']} |"
            for name, f in figures.items()
        ),
        "![curves](camvid.png)",
        "Frame, labels and prediction:\n\n![frames](camvid_frames.jpg)",
        "Classes of the pretrained run:\n\n" + (workdirs["pretrained"] / "per_class.md").read_text(),
    ]
    (measure.RESULTS / "camvid.md").write_text("\n\n".join(lines))
    measure.print_table([{"start": name, "mIoU": f["mIoU"]} for name, f in figures.items()])


def draw(figures: dict[str, dict], path: pathlib.Path) -> None:
    """Draws the validation mIoU of both runs over the steps."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    for name, run in figures.items():
        axes.plot(*zip(*run["curve"], strict=True), marker=".", label=name)
    axes.axhline(50, color="grey", linestyle=":", label="aim")
    axes.set(xlabel="step", ylabel="val mIoU %", ylim=(0, 80))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=100)


def join_frames(folder: pathlib.Path, path: pathlib.Path) -> None:
    """Stacks the pictures of FRAMES into one, a JPEG so that the repository stays small."""
    pictures = [np.asarray(Image.open(folder / f"{index:05}.png").convert("RGB")) for index in FRAMES]
    Image.fromarray(np.concatenate(pictures)).save(path, quality=85)


if __name__ == "__main__":
    main()
