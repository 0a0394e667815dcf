"""Measures accuracy, size and latency of trained models in every runtime and precision.

    python -m experiments.exports [--classification runs/trashnet --classification-root PATH/TO/trashnet] \
        [--segmentation runs/camvid --segmentation-root PATH/TO/camvid] [--detection runs/bccd --detection-root \
        PATH/TO/bccd] [--formats onnx,litert] [--out runs/exports]

Runs the documented commands for each workdir: `convert.to_torch`, then `convert.export` in every format. int8 is
calibrated with 100 images of the training split. All precisions are scored on the whole validation split, and int8 is
refused if its score drops too much. Existing bundles are not exported again. Writes experiments/results/exports.json
and .md; what is not asked for keeps its rows there.
"""

import argparse
import json
import pathlib
from typing import Any, NamedTuple

from convert.bundle import NATIVE
from experiments import measure, runs
from seaformer_jax.training import workdir

# An int8 export also measures fp32 and fp16. ncnn and MNN have no int8.
PRECISIONS = {"ncnn": ("fp32", "fp16"), "mnn": ("fp32", "fp16")}
MAX_DROP = 2.0  # Percentage points of the score; one of TrashNet's 329 images is 0.3 points.
COLUMNS = (
    "format",
    "precision",
    "MB",
    "{metric} %",
    "drop",
    "relative RMS",
    "classes agree %",
    "outside",
    "ms",
)


class Trained(NamedTuple):
    """A workdir with the data it was trained on.

    Attributes:
        name: Of the model.
        run: The workdir.
        size: Height and width of the exported model's image.
        train: Folder of training images, for --calibration.
        val: Folder of validation images, for --validation.
    """

    name: str
    run: pathlib.Path
    size: tuple[int, int]
    train: pathlib.Path
    val: pathlib.Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for task in TASKS:
        parser.add_argument(f"--{task}", type=pathlib.Path, help="workdir")
        parser.add_argument(f"--{task}-root", type=pathlib.Path, help="its data set")
    parser.add_argument("--formats", default=",".join(NATIVE))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/exports"))
    options = parser.parse_args()
    path = measure.RESULTS / "exports.json"
    reports = json.loads(path.read_text())["reports"] if path.exists() else []
    for task, find in TASKS.items():
        run, root = getattr(options, task), getattr(options, f"{task}_root")
        if run and root:
            model = find(run, root)
            for kind in options.formats.split(","):
                new = export(model, options.out / f"{model.name}_{task}", kind)
                made = {cell(report) for report in new}
                reports = [report for report in reports if cell(report) not in made] + new
    measure.write("exports", {"reports": reports})
    text = markdown(reports)
    path.with_suffix(".md").write_text(text)
    print(text)


def cell(report: dict[str, Any]) -> tuple[str, ...]:
    """Returns what a report is of: the task, the model and the format. A newer one replaces it."""
    return tuple(report[key] for key in ("task", "name", "format"))


def classifier(run: pathlib.Path, root: pathlib.Path) -> Trained:
    """Returns the classifier of a run, whose data set is an ImageFolder at `root`."""
    config = workdir.read(run)[0]
    data = config.data
    size = (data.image_size, data.image_size)
    return Trained(config.model.name, run, size, root / data.train_split, root / data.val_split)


def on_images(run: pathlib.Path, root: pathlib.Path) -> Trained:
    """Returns the segmentation model or detector of a run, whose data set at `root` has a folder `images`."""
    config = workdir.read(run)[0]
    data, images = config.data, root / "images"
    long, short = config.eval.scale
    size = (short, long)
    return Trained(config.model.name, run, size, images / data.train_split, images / data.val_split)


# Task -> function of a workdir and a data set.
TASKS = {"classification": classifier, "segmentation": on_images, "detection": on_images}


def export(model: Trained, out: pathlib.Path, kind: str) -> list[dict[str, Any]]:
    """Exports the bundles of one format, unless they exist; returns their reports."""
    weights = out / "model.pth"
    if not weights.exists():
        out.mkdir(parents=True, exist_ok=True)
        runs.call("convert.to_torch", f"--workdir={model.run}", f"--out={weights}")
    reports = []
    for precision in PRECISIONS.get(kind, ("int8",)):
        bundle = out / f"{kind}_{precision}"
        if not bundle.exists():
            runs.call(
                "convert.export",
                f"--weights={weights}",
                f"--format={kind}",
                f"--input-size={model.size[0]}x{model.size[1]}",
                f"--precision={precision}",
                f"--calibration={model.train}",
                f"--validation={model.val}",
                f"--max-drop={MAX_DROP}",
                f"--out={bundle}",
            )
        report = json.loads((bundle / "report.json").read_text())
        # The paths of the data on this machine mean nothing to a reader.
        reports.append({k: v for k, v in report.items() if k not in ("calibration", "validation")})
    return reports


def markdown(reports: list[dict[str, Any]]) -> str:
    """Returns the result file: a table for each task, with a row for each format and precision."""
    texts = [
        "# Trained models in every runtime",
        "`python -m experiments.exports`: bundles of `python -m convert.export` from the weights of "
        "runs such as [`trashnet`](trashnet.md), [`camvid`](camvid.md) and [`bccd`](bccd.md), each verified against "
        "the model in JAX. Scores are on whole validation splits, one image of the fixed input size at a time. int8 "
        "is calibrated with 100 training "
        f"images, and refused if the score drops by more than {MAX_DROP:g} points. Relative RMS is the RMS of the "
        "differences of the logits over the RMS of the logits. Outside are the operators that the runtime's fast "
        "path cannot run. ms is the median of 30 runs of the network alone on one thread; "
        "[`deployment_cpu`](deployment_cpu.md) has more careful measurements.",
    ]
    # Sections by task and name; their rows stay in the order in which they were made.
    for section in sorted({cell(report)[:2] for report in reports}):
        texts += _section([report for report in reports if cell(report)[:2] == section])
    return "\n\n".join(texts) + "\n"


def _section(reports: list[dict[str, Any]]) -> list[str]:
    first = reports[0]
    height, width = first["input_size"]
    versions = {name: version for report in reports for name, version in report["versions"].items()}
    header = [column.format(metric=first["metric"]) for column in COLUMNS]
    rows = [f"| {' | '.join(header)} |", "|---|---|" + "---:|" * 5 + "---|---:|"]
    rows += [_row(report, row) for report in reports for row in report["precisions"]]
    return [
        f"## {first['name']}, {first['task']}, {height}x{width}",
        f"Trained, in JAX: **{first['trained_score']:.2f} %** {first['metric']} on {first['validation_images']} "
        "images. Made with " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
        "\n".join(rows),
    ]


def _row(report: dict[str, Any], row: dict[str, Any]) -> str:
    outside = ", ".join(f"{count} {name}" for name, count in row["outside_delegate"].items()) or "none"
    cells = [
        report["format"],
        row["precision"],
        f"{row['bytes'] / 1e6:.2f}",
        f"{row['score']:.2f}",
        f"{report['trained_score'] - row['score']:.2f}",
        f"{row['relative_rms']:.1e}",
        f"{100 * row['agreement']:.3f}",
        outside,
        f"{row['milliseconds_here']:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
