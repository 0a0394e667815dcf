"""Counts the ARM instructions of models with seeded weights and compares them with the committed counts.

python -m convert.arm.counts [--update]

Every model is counted in ONNX Runtime, LiteRT, ExecuTorch and ncnn. SeaFormer-B for segmentation is also counted in
int8, and as "plain ONNX": as people usually export it, with resize, softmax and argmax in the ONNX graph.

`make arm-check` sets up everything and runs this. The exit status is 1 if a count differs from baselines.json by more
than 1 %, if an output differs from that at export, or if a ratio of counts is above its target. With --update the
counts are written to baselines.json and the tables to baselines.md.
"""

import functools
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from convert.bundle import Bundle
from convert.export import seeded_bundles
from convert.graph import seeded_networks
from convert.latency import table
from convert.latency.devices import toolchain
from convert.latency.devices.qemu import Qemu
from convert.latency.turns import measure

FORMATS = ("onnx", "litert", "executorch", "ncnn")
INT8_FORMATS = ("litert", "executorch")
MODELS = (
    ("classification", "seaformer_tiny", (224, 224)),
    ("classification", "seaformer_base", (224, 224)),
    ("segmentation", "seaformer_tiny", (512, 512)),
    ("segmentation", "seaformer_base", (512, 512)),
)
TOLERANCE = 0.01  # Allowed difference, as a fraction of the count.
# Millions of instructions. The tolerance of a smaller count is that of this one.
_FLOOR = 0.1
BASELINES = pathlib.Path(__file__).with_name("baselines.json")

# Bundle -> step -> millions of instructions.
Counts = dict[str, dict[str, float]]


class Case(NamedTuple):
    """A bundle whose instructions are counted.

    Attributes:
        task: "classification" or "segmentation".
        name: Name of the model size, such as "seaformer_tiny".
        input_size: Height and width of the input.
        kind: Format of the bundle, such as "litert".
        precision: "fp32" or "int8".
    """

    task: str
    name: str
    input_size: tuple[int, int]
    kind: str
    precision: str = "fp32"

    @property
    def folder(self) -> str:
        """Name of the bundle's folder, which is also its name in the tables."""
        suffix = "" if self.precision == "fp32" else f"_{self.precision}"
        return f"{self.task}_{self.name}_{self.kind}{suffix}"


COMPARED = MODELS[-1]  # The model of the ratios.
CASES = (
    *(Case(*model, kind) for model in MODELS for kind in FORMATS),
    *(Case(*COMPARED, kind, "int8") for kind in INT8_FORMATS),
)
PLAIN = f"{Case(*COMPARED, 'onnx').folder}_plain"


class Ratio(NamedTuple):
    """The ratio of two counts.

    Attributes:
        what: What is compared with what.
        found: The ratio that was counted.
        target: The largest ratio that passes the check.
    """

    what: str
    found: float
    target: float


def main(arguments: Sequence[str]) -> int:
    """Counts, prints the tables and the problems, and returns the exit status."""
    # 1. Count, and print the tables.
    report = measure(Qemu(threads=1), export(), runs=1)
    text, found = table.write(report, toolchain.BUILD / "check"), counts(report)
    compared = ratios(found)
    text += "\n" + ratio_table(compared)
    print(text)
    # 2. Update the committed files first: the check below is then against the new counts.
    if "--update" in arguments:
        BASELINES.write_text(json.dumps(found, indent=1) + "\n")
        BASELINES.with_suffix(".md").write_text(text)
    # 3. Check the counts, the outputs and the ratios.
    problems = drift(found, json.loads(BASELINES.read_text()))
    problems += [
        f"{r['bundle']}: the output differs from the output at export"
        for r in report["bundles"]
        if not r["parity"]["ok"]
    ]
    problems += [
        f"{r.what}: the ratio {r.found:.3f} is above its target {r.target}"
        for r in compared
        if r.found > r.target
    ]
    print("\n".join(problems) or f"all counts within {TOLERANCE:.0%} of {BASELINES.name}")
    return 1 if problems else 0


def export() -> list[Bundle]:
    """Writes all bundles to build/arm/bundles and returns them, plain ONNX last."""
    # Building a model takes time, and every model is exported several times.
    seeded, bundles = functools.cache(seeded_networks.seeded), []
    for case in CASES:
        print(f"export {case.folder} ...", flush=True)
        task, name, size, kind, precision = case
        folder = toolchain.BUILD / "bundles" / case.folder
        bundles.append(
            seeded_bundles.write_bundle(seeded(task, name, size), folder, task, name, kind, size, precision)
        )
    print(f"export {PLAIN} ...", flush=True)
    _, name, size = COMPARED
    return [*bundles, seeded_bundles.write_plain_bundle(toolchain.BUILD / "bundles" / PLAIN, name, size)]


def ratios(found: Counts) -> list[Ratio]:
    """Returns the ratios of counts of SeaFormer-B at 512x512.

    For labels, our bundles are compared with the plain ONNX graph, including pre-processing. For logits8, the int8
    network is compared with the fp32 network.
    """
    lines = []
    for kind in FORMATS:
        ours = found[Case(*COMPARED, kind).folder]["together"]
        # ONNX Runtime's convolutions take 1.4 times the instructions of those of the others.
        target = 0.25 if kind == "onnx" else 0.19
        lines.append(Ratio(f"labels, {kind} against plain ONNX", ours / found[PLAIN]["together"], target))
    for kind in INT8_FORMATS:
        whole, short = (found[Case(*COMPARED, kind, p).folder]["network"] for p in ("fp32", "int8"))
        lines.append(Ratio(f"logits8, {kind}, int8 against fp32", short / whole, 0.40))
    return lines


def ratio_table(lines: Sequence[Ratio]) -> str:
    """Returns the ratios of SeaFormer-B at 512x512 as a Markdown table."""
    head = [
        "| ratio of instruction counts, SeaFormer-B at 512x512 | counted | target (at most) |",
        "|---|---|---|",
    ]
    rows = [f"| {line.what} | {line.found:.3f} | {line.target:.2f} |" for line in lines]
    return "\n".join([*head, *rows]) + "\n"


def counts(report: dict[str, Any]) -> Counts:
    """Returns the median millions of instructions of every bundle and step."""
    return {
        record["bundle"]: {step: round(figures["median"], 4) for step, figures in record["summary"].items()}
        for record in report["bundles"]
    }


def drift(found: Counts, expected: Counts) -> list[str]:
    """Returns a sorted list with one line for every count that differs from its baseline.

    A bundle without counts and a count without a baseline each have a line as well.
    """
    lines = [f"{name}: has a baseline but was not counted" for name in expected.keys() - found.keys()]
    for name, steps in found.items():
        for step, count in steps.items():
            baseline = expected.get(name, {}).get(step)
            if baseline is None:
                lines.append(f"{name}, {step}: {count} M instructions, but no baseline; add it with --update")
            elif abs(count - baseline) > max(TOLERANCE * baseline, TOLERANCE * _FLOOR):
                lines.append(
                    f"{name}, {step}: {count} M instructions, {count / baseline - 1:+.1%} from baseline {baseline}"
                )
    return sorted(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
