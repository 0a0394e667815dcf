"""From an image to logits and labels on one core: every size in every runtime, against what people have.

    python -m experiments.deployment [--sizes tiny,base] [--runs 50]

Classifiers at 224x224, segmentation with 150 classes at 512x512, with seeded weights. What people have: the PyTorch
model in eager mode with mmseg's test path (logits resized, softmax, argmax), and its graph as the official
`convert2onnx.py` writes it, with and without that path in it, in ONNX Runtime. Ours: bundles in all four runtimes,
labels by the C kernel, or in the ONNX graph. The sides of a model take turns on one core. All runtimes have to be
installed in one environment, such as the one that `make arm-check` makes, build/arm/venv.

Prints the tables and the targets, and writes experiments/results/deployment_cpu.json and .md.
"""

import argparse
import pathlib
import tempfile
from typing import Any

from convert.graph import seeded_networks
from convert.latency.turns import measure as measure_bundles
from experiments import deployment_report as reporting
from experiments import deployment_sides as sides
from experiments import measure

INPUTS = {"classification": (224, 224), "segmentation": (512, 512)}
INT8_SIZE = "base"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="tiny,small,base,large")
    parser.add_argument("--runs", type=int, default=50)
    options = parser.parse_args()
    reports = {
        (task, size): compare(task, size, options.runs)
        for task in INPUTS
        for size in options.sizes.split(",")
    }
    figures = {
        "targets": reporting.against_targets(reports),
        "reports": [{"size": size, **reporting.rounded(report)} for (_, size), report in reports.items()],
    }
    reporting.write("deployment_cpu", markdown(reports), figures)


def compare(task: str, size: str, runs: int) -> dict[str, Any]:
    """Measures all sides of one model in turns."""
    print(f"{task}, {size}", flush=True)
    name = f"seaformer_{size}"
    model = seeded_networks.trained(task, name)
    with tempfile.TemporaryDirectory() as folder:
        bundles = sides.write(pathlib.Path(folder), model, task, name, INPUTS[task], int8=size == INT8_SIZE)
        return measure_bundles(sides.HostWithEager({sides.EAGER: model}), bundles, runs)


def markdown(reports: dict[tuple[str, str], dict[str, Any]]) -> str:
    first = next(iter(reports.values()))
    schedule = first["schedule"]
    wrong = [
        f"{record['bundle']} of {size} {task}"
        for (task, size), report in reports.items()
        for record in report["bundles"]
        if not record["parity"]["ok"]
    ]
    texts = [
        "# Deployment on one core",
        f"`python -m experiments.deployment` on {first['facts']['cpu']}, one thread pinned to a core, "
        f"{first['date']}: median ms of {schedule['rounds'] * schedule['runs']} runs in {schedule['rounds']} rounds "
        "of turns, from a normalised float32 image to a NumPy array. `logits8`: at 1/8 of the image; `labels`: the "
        "class of every pixel. x: how many times as fast as the side it names. eager: PyTorch, with mmseg's resize, "
        "softmax and argmax; plain onnx: the graph of the same, opset 11, in ONNX Runtime. The others are bundles of "
        "ours; their labels come from `argmax_upsample.c`, those of `onnx labels` from the graph. int8 shows the "
        "latency alone: the weights are random.",
        f"OTHER OUTPUT than PyTorch's: {', '.join(wrong)}."
        if wrong
        else "All but int8 gave PyTorch's output.",
        "## Targets",
        measure.table(reporting.against_targets(reports)),
    ]
    for task, (height, width) in INPUTS.items():
        rows = [
            row for (t, size), report in reports.items() if t == task for row in reporting.rows(size, report)
        ]
        texts += [f"## {task.capitalize()}, {height}x{width}", measure.table(rows)]
    return "\n\n".join(texts) + "\n"


if __name__ == "__main__":
    main()
