"""Measures the cost of each part of SeaFormer-Base in every runtime, from an image of 512x512 to its labels.

    python -m experiments.deployment_parts [--runs 50]

Repeats for all runtimes what `python -m convert.latency.by_part` does for one. Prints the table and writes
experiments/results/deployment_parts_cpu.json and .md. Needs the environment of `experiments.deployment`.
"""

import argparse
import pathlib
import tempfile
from typing import Any

from convert.bundle import NATIVE
from convert.latency import by_part, part_costs
from convert.latency.devices.registry import find
from convert.latency.turns import measure as measure_bundles
from experiments import deployment_report as reporting
from experiments import measure

NAME, SIZE = "seaformer_base", (512, 512)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=50)
    options = parser.parse_args()
    reports = {}
    for kind in NATIVE:
        with tempfile.TemporaryDirectory() as folder:
            bundles = by_part.write(pathlib.Path(folder), "segmentation", NAME, kind, SIZE)
            reports[kind] = measure_bundles(find("host", 1), bundles, options.runs)
    figures = {"reports": [reporting.rounded(report) for report in reports.values()]}
    reporting.write("deployment_parts_cpu", markdown(reports), figures)


def markdown(reports: dict[str, dict[str, Any]]) -> str:
    """Returns the result file: a row for each part, with its time and its share of the whole in every runtime."""
    costs = {kind: part_costs.costs(report) for kind, report in reports.items()}
    rows = []
    for part in [*next(iter(costs.values())), "whole"]:
        row: dict[str, Any] = {"part": part}
        for kind, parts in costs.items():
            whole = sum(parts.values())
            cost = parts.get(part, whole)
            row |= {f"{kind} ms": cost, f"{kind} %": 100 * cost / whole}
        rows.append(row)
    first = next(iter(reports.values()))
    return (
        f"# The parts of {NAME}, segmentation, {SIZE[0]}x{SIZE[1]}\n\n`python -m experiments.deployment_parts` on "
        f"{first['facts']['cpu']}, one thread pinned to a core, {first['date']}. The cost of a part is the time that "
        "it adds to the median of the network that ends before it. Post-processing is `argmax_upsample.c`, whose "
        "time depends on the logits; those of seeded weights are its hard case.\n\n"
        f"{measure.table(rows)}\n"
    )


if __name__ == "__main__":
    main()
