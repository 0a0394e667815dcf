"""Measures the time from an image to logits and labels on one core: every size in every runtime, against PyTorch.

    python -m experiments.deployment [--sizes tiny,base] [--runs 50]

Classifiers run at 224x224, segmentation with 150 classes at 512x512, both with seeded weights. There are two
baselines: the PyTorch model in eager mode with mmseg's test path (resize the logits, softmax, argmax), and the ONNX
graph that the official `convert2onnx.py` writes, with and without that path in it, in ONNX Runtime. Our sides are
bundles in all runtimes, whose labels come from the C kernel, and for ONNX also a graph that ends in labels. The
sides of a model take turns on one core. All runtimes have to be installed in one environment: that of `make
arm-check`, build/arm/venv, with the extras openvino and mnn added.

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
INT8_SIZE = "base"  # The only size that is also measured in int8.


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
    """Measures all sides of one model, which take turns; returns the report."""
    print(f"{task}, {size}", flush=True)
    name = f"seaformer_{size}"
    model = seeded_networks.trained(task, name)
    with tempfile.TemporaryDirectory() as folder:
        bundles = sides.write(pathlib.Path(folder), model, task, name, INPUTS[task], int8=size == INT8_SIZE)
        return measure_bundles(sides.HostWithEager({sides.EAGER: model}), bundles, runs)


def markdown(reports: dict[tuple[str, str], dict[str, Any]]) -> str:
    """Returns the result file: the setting, the targets, and a table for each task."""
    first = next(iter(reports.values()))
    schedule = first["schedule"]
    # Times of a side with another output mean nothing, so such a side is named at the top.
    wrong = [
        f"{record['bundle']} of {size} {task}"
        for (task, size), report in reports.items()
        for record in report["bundles"]
        if not record["parity"]["ok"]
    ]
    texts = [
        "# Deployment on one core",
        f"`python -m experiments.deployment` on {first['facts']['cpu']}, one thread pinned to a core, "
        f"{first['date']}: median ms of {schedule['rounds'] * schedule['runs']} runs in {schedule['rounds']} rounds, "
        "from a normalised float32 image to a NumPy array; the sides take turns. `logits8` are logits at 1/8 of the "
        "image; `labels` are the class of every pixel. A column with x has the speed-up over the side in its name. "
        "`eager` is PyTorch with mmseg's resize, softmax and argmax; `plain onnx` is the graph of the same in opset "
        "11, in ONNX Runtime. The other sides are our bundles. Their labels come from `argmax_upsample.c`, except "
        "that `onnx labels` has them in its graph. The int8 rows show only latency, because the weights are random.",
        f"The output DIFFERS from PyTorch's in: {', '.join(wrong)}."
        if wrong
        else "All sides except int8 gave the same output as PyTorch.",
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
