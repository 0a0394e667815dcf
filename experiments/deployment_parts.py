"""Measures the cost of each part of SeaFormer-Tiny and -Base in every runtime, from an image of 512x512 to labels.

    python -m experiments.deployment_parts [--sizes tiny,base] [--formats onnx,litert,executorch,ncnn] [--runs 50]

Repeats for all runtimes what `python -m convert.latency.by_part` does for one. Prints the tables and writes
experiments/results/deployment_parts_cpu.json and .md. A size and format that is not asked for keeps its figures in
the JSON, so that the table can be made in short runs. Needs the environment of `experiments.deployment`.
"""

import argparse
import json
import pathlib
import tempfile
from typing import Any

from convert.bundle import NATIVE
from convert.latency import by_part, part_costs
from convert.latency.devices.registry import find
from convert.latency.turns import measure as measure_bundles
from experiments import deployment_report as reporting
from experiments import measure

RESULT, SIZES, INPUT = "deployment_parts_cpu", ("tiny", "base"), (512, 512)

Reports = dict[str, dict[str, dict[str, Any]]]  # size -> format -> report of `turns.measure`, with the costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default=",".join(SIZES))
    parser.add_argument("--formats", default=",".join(NATIVE))
    parser.add_argument("--runs", type=int, default=50)
    options = parser.parse_args()
    path = measure.RESULTS / f"{RESULT}.json"
    reports: Reports = json.loads(path.read_text())["reports"] if path.exists() else {}
    for size in options.sizes.split(","):
        for kind in options.formats.split(","):
            print(f"{size}, {kind}", flush=True)
            report = measured(size, kind, options.runs)
            costs = part_costs.costs(report)
            reports.setdefault(size, {})[kind] = {"costs": costs, **reporting.rounded(report)}
    reporting.write(RESULT, markdown(reports), {"reports": reports})


def measured(size: str, kind: str, runs: int) -> dict[str, Any]:
    """Returns the report of the networks up to each part of one size, exported to the format `kind`."""
    with tempfile.TemporaryDirectory() as folder:
        bundles = list(by_part.write(pathlib.Path(folder), "segmentation", f"seaformer_{size}", kind, INPUT))
        return measure_bundles(find("host", 1), bundles, runs)


def markdown(reports: Reports) -> str:
    """Returns the result file: a table for each size."""
    texts = [
        f"# The parts of SeaFormer, segmentation, {INPUT[0]}x{INPUT[1]}",
        "`python -m experiments.deployment_parts`, one thread pinned to a core. The cost of a part is the time that "
        "it adds to the median of the network that ends before it. Post-processing is `argmax_upsample.c`, whose "
        "time depends on the logits; those of seeded weights are its hard case.",
    ]
    for size in (size for size in SIZES if size in reports):
        found = reports[size]
        dates = ", ".join(dict.fromkeys(report["date"][:10] for report in found.values()))
        texts += [
            f"## {size}, {next(iter(found.values()))['facts']['cpu']}, {dates}",
            measure.table(rows(found)),
        ]
    return "\n\n".join(texts) + "\n"


def rows(reports: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns a row for each part of one size: its time and its share of the whole in every format of `reports`."""
    costs = {kind: report["costs"] for kind, report in reports.items()}
    table = []
    for part in [*next(iter(costs.values())), "whole"]:
        row: dict[str, Any] = {"part": part}
        for kind, parts in costs.items():
            whole = sum(parts.values())
            cost = parts.get(part, whole)
            row |= {f"{kind} ms": cost, f"{kind} %": 100 * cost / whole}
        table.append(row)
    return table


if __name__ == "__main__":
    main()
