"""Measures multi-resolution distillation on CamVid: a student at half resolution, with and without its teacher.

    python -m experiments.distillation --root PATH/TO/camvid --teacher runs/camvid --init runs/trashnet \\
        [--out runs/distillation] [--seeds 2] [--steps 6000]

Trains every side with every seed with the documented commands, one run after the other; finished runs are not
repeated. A run starts from the classifier that the teacher started from, or from the teacher itself. Then exports
all networks to ONNX, verified, and measures their latency on one pinned thread, where they take turns; this needs the
extra `onnx`. Writes experiments/results/distillation.json, .md and .png.
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

FULL, HALF = (360, 480), (180, 240)  # Height and width of a frame, and of the student's image.
LATENCY_RUNS = 50


class Side(NamedTuple):
    """A way to train the student.

    Attributes:
        label: Description for the table and the figure.
        config: Recipe and variant.
        flags: Further flags of the training command.
        from_teacher: Whether it starts from the teacher's weights; otherwise from the classifier's.
    """

    label: str
    config: str
    flags: tuple[str, ...]
    from_teacher: bool = False


# Trains and tests on frames of half the height and width.
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
    workdirs = {name: [] for name in SIDES}
    for seed in range(options.seeds):
        for name in SIDES:
            workdirs[name].append(train(name, seed, options))
    write_results(options, {"teacher": [options.teacher], **workdirs})


def train(name: str, seed: int, options: argparse.Namespace) -> pathlib.Path:
    """Trains and evaluates one side with a seed; returns the workdir."""
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


def write_results(options: argparse.Namespace, workdirs: dict[str, list[pathlib.Path]]) -> None:
    """Writes the result files from the runs of the teacher and of every side, one workdir per seed."""
    # The latency does not depend on the weights, so one seed is enough.
    milliseconds = latency({name: folders[0] for name, folders in workdirs.items()})
    rows = {name: row(name, folders, milliseconds[name]) for name, folders in workdirs.items()}
    measure.write("distillation", {"steps": options.steps, **rows})
    draw(rows, measure.RESULTS / "distillation.png")
    (measure.RESULTS / "distillation.md").write_text(text(options, rows))
    measure.print_table([{"side": name, "mIoU": figures["mean"]} for name, figures in rows.items()])


def row(name: str, folders: list[pathlib.Path], milliseconds: float) -> dict:
    """Returns the scores, costs and training times of one side."""
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


def latency(workdirs: dict[str, pathlib.Path]) -> dict[str, float]:
    """Returns the median milliseconds of each network from image to logits in ONNX Runtime on one thread.

    The networks take turns.
    """
    bundles = [export(folder, input_size(name)) for name, folder in workdirs.items()]
    report = measure_bundles(registry.find("host", 1), bundles, LATENCY_RUNS)
    return {
        name: statistics.median(record["samples"]["network"])
        for name, record in zip(workdirs, report["bundles"], strict=True)
    }


def export(folder: pathlib.Path, size: tuple[int, int]) -> Bundle:
    """Exports a run to ONNX unless its bundle exists; returns the bundle."""
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
    """Returns the result file: the table, and what the teacher's two contributions gain."""
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
            "Latencies are medians on one pinned x86 thread; the networks take turns. Training minutes were measured "
            "on a shared machine.",
            "\n".join(table),
            f"The teacher gives the same student {distilled - alone:+.2f} points of mIoU at the same latency: "
            f"{started - alone:+.2f} from starting with its weights, {distilled - started:+.2f} from distillation.",
            "![accuracy against latency](distillation.png)\n",
        ]
    )


def draw(rows: dict[str, dict], path: pathlib.Path) -> None:
    """Draws the mIoU of every run over the latency of its network."""
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
