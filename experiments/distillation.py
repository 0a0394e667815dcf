"""Multi-resolution distillation on CamVid: a student of half the height and width, with and without its teacher.

    python -m experiments.distillation --root PATH/TO/camvid --teacher runs/camvid --init runs/trashnet \\
        [--out runs/distillation] [--seeds 2] [--steps 6000]

Trains every side with every seed, one run after the other, with the documented commands (a finished run is not
trained again), from the classifier that the teacher started from or from the teacher itself. Exports all to ONNX,
verified, and measures the networks in turns on one pinned thread; needs the extra `onnx`. Writes
experiments/results/distillation.json, .md and .png.
"""

import argparse
import pathlib
import statistics
from typing import NamedTuple

from matplotlib.figure import Figure

from convert.bundle import Bundle
from convert.latency.devices import registry
from convert.latency.turns import measure as measure_bundles
from experiments import measure, runs
from seaformer_jax.models.macs import count_macs
from seaformer_jax.training import trained

FULL, HALF = (360, 480), (180, 240)  # Height and width of a frame, and of the student's.
LATENCY_RUNS = 50


class Side(NamedTuple):
    """A way to train the student."""

    label: str
    config: str
    flags: tuple[str, ...]
    from_teacher: bool = False  # Starts from the teacher's weights; else from the classifier's.


_HALF_FLAGS = (
    "--config.data.base_scale=(240, 180)",
    "--config.data.crop_size=(120, 160)",
    "--config.eval.scale=(240, 180)",
)
_STUDENT = "configs/distill_camvid.py:tiny"
_ALONE = ("--config.distillation.feature_weight=0",)
SIDES = {
    "plain": Side("alone, without the up-sampling module", "configs/camvid.py:tiny", _HALF_FLAGS),
    "alone": Side("alone", _STUDENT, _ALONE),
    "started": Side("alone, from the teacher's weights", _STUDENT, _ALONE, from_teacher=True),
    "distilled": Side("distilled, from the teacher's weights", _STUDENT, (), from_teacher=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True)
    parser.add_argument("--teacher", type=pathlib.Path, required=True, help="run of configs/camvid.py")
    parser.add_argument("--init", required=True, help="workdir or checkpoint of a classifier")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/distillation"))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=6000)
    options = parser.parse_args()
    found = {name: [] for name in SIDES}
    for seed in range(options.seeds):
        for name in SIDES:
            found[name].append(train(name, seed, options))
    write_results(options, {"teacher": [options.teacher], **found})


def train(name: str, seed: int, options: argparse.Namespace) -> pathlib.Path:
    side = SIDES[name]
    teacher = (f"--config.teacher.source={options.teacher}",) if side.config == _STUDENT else ()
    return runs.train(
        options.out / f"{name}_{seed}",
        side.config,
        f"--config.data.root={options.root}",
        f"--config.init_from={options.teacher if side.from_teacher else options.init}",
        f"--config.total_steps={options.steps}",
        f"--config.seed={seed}",
        *side.flags,
        *teacher,
    )


def write_results(options: argparse.Namespace, found: dict[str, list[pathlib.Path]]) -> None:
    milliseconds = latency({name: folders[0] for name, folders in found.items()})
    rows = {name: row(name, folders, milliseconds[name]) for name, folders in found.items()}
    measure.write("distillation", {"steps": options.steps, **rows})
    draw(rows, measure.RESULTS / "distillation.png")
    (measure.RESULTS / "distillation.md").write_text(text(options, rows))
    measure.print_table([{"side": name, "mIoU": figures["mean"]} for name, figures in rows.items()])


def row(name: str, folders: list[pathlib.Path], milliseconds: float) -> dict:
    scores = [round(runs.results(folder)["mIoU"], 2) for folder in folders]
    model, size = trained.load(folders[0]).model, input_size(name)
    return {
        "label": SIDES[name].label if name in SIDES else name,
        "input": size,
        "mIoU": scores,
        "mean": round(statistics.mean(scores), 2),
        "gmacs": count_macs(model, *size).total / 1e9,
        "logits8_ms": milliseconds,
        "minutes": [round(runs.minutes(folder), 1) for folder in folders],
    }


def input_size(name: str) -> tuple[int, int]:
    return FULL if name == "teacher" else HALF


def latency(found: dict[str, pathlib.Path]) -> dict[str, float]:
    """Returns the median milliseconds of each network to its logits in ONNX Runtime, taking turns on one thread."""
    bundles = [export(folder, input_size(name)) for name, folder in found.items()]
    report = measure_bundles(registry.find("host", 1), bundles, LATENCY_RUNS)
    return {
        name: statistics.median(record["samples"]["network"])
        for name, record in zip(found, report["bundles"], strict=True)
    }


def export(folder: pathlib.Path, size: tuple[int, int]) -> Bundle:
    bundle, weights = folder / "onnx", folder / "model.pth"
    if not bundle.exists():
        runs.call("convert.to_torch", f"--workdir={folder}", f"--out={weights}")
        runs.call(
            "convert.export",
            f"--weights={weights}",
            "--format=onnx",
            f"--input-size={size[0]}x{size[1]}",
            f"--out={bundle}",
        )
    return Bundle.open(bundle)


def text(options: argparse.Namespace, rows: dict[str, dict]) -> str:
    alone, started, distilled = (rows[name]["mean"] for name in ("alone", "started", "distilled"))
    table = [
        "| | input | val mIoU % by seed | mean | GMACs | `logits8` ms, ONNX Runtime | training minutes |",
        "|---|---|---|---:|---:|---:|---|",
    ]
    for r in rows.values():
        scores, times = (", ".join(f"{value}" for value in r[key]) for key in ("mIoU", "minutes"))
        size = "x".join(map(str, r["input"]))
        costs = f"{r['gmacs']:.3f} | {r['logits8_ms']:.2f} | {times}"
        table.append(f"| {r['label']} | {size} | {scores} | **{r['mean']}** | {costs} |")
    return "\n\n".join(
        [
            "# Multi-resolution distillation on CamVid",
            f"`python -m experiments.distillation`: SeaFormer-Tiny as teacher and as student, {options.steps} steps, "
            f"seeds 0 to {options.seeds - 1}; validation on the labels of whole frames at 360x480. "
            "The latencies are of one pinned x86 thread, in turns. Training minutes are those of a shared machine.",
            "\n".join(table),
            f"The teacher is worth {distilled - alone:+.2f} points of mIoU to the same student at the same latency: "
            f"{started - alone:+.2f} its weights to start from, {distilled - started:+.2f} what it says in training.",
            "![accuracy against latency](distillation.png)\n",
        ]
    )


def draw(rows: dict[str, dict], path: pathlib.Path) -> None:
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    for r in rows.values():
        axes.plot(
            [r["logits8_ms"]] * len(r["mIoU"]),
            r["mIoU"],
            "o",
            label=f"{r['label']}, {r['input'][0]}x{r['input'][1]}",
        )
    axes.set(xlabel="logits8 latency, ms (one x86 thread)", ylabel="val mIoU %", xlim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
