"""Counts ARM instructions of seeded models and compares them with the committed counts.

python -m convert.arm.counts [--update]

All models in LiteRT, ExecuTorch and ncnn; SeaFormer-B for segmentation also in int8, and as people export it: resize,
softmax and argmax in an ONNX graph, for ONNX Runtime.

`make arm-check` sets up what it needs. Exit status 1 where a count is more than 1 % off baselines.json, an output is
another than at export, or a ratio of counts is above its target; with --update the counts are written there, and the
tables to baselines.md.
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

FORMATS = ("litert", "executorch", "ncnn")
INT8_FORMATS = ("litert", "executorch")
MODELS = (
    ("classification", "seaformer_tiny", (224, 224)),
    ("classification", "seaformer_base", (224, 224)),
    ("segmentation", "seaformer_tiny", (512, 512)),
    ("segmentation", "seaformer_base", (512, 512)),
)
TOLERANCE = 0.01  # of a count
_FLOOR = 0.1  # Millions of instructions; of smaller steps Python is the larger part.
_BASELINES = pathlib.Path(__file__).with_name("baselines.json")

Counts = dict[str, dict[str, float]]


class Case(NamedTuple):
    """A bundle that is counted."""

    task: str
    name: str
    input_size: tuple[int, int]
    kind: str
    precision: str = "fp32"

    @property
    def folder(self) -> str:
        """Its name in the tables."""
        suffix = "" if self.precision == "fp32" else f"_{self.precision}"
        return f"{self.task}_{self.name}_{self.kind}{suffix}"


COMPARED = MODELS[-1]
CASES = (
    *(Case(*model, kind) for model in MODELS for kind in FORMATS),
    *(Case(*COMPARED, kind, "int8") for kind in INT8_FORMATS),
)
PLAIN = f"{Case(*COMPARED, 'onnx').folder}_plain"


class Ratio(NamedTuple):
    """Of two counts, and the largest that is good."""

    what: str
    found: float
    target: float


def main(arguments: Sequence[str]) -> int:
    report = measure(Qemu(threads=1), export(), runs=1)
    text, found = table.write(report, toolchain.BUILD / "check"), counts(report)
    compared = ratios(found)
    text += "\n" + ratio_table(compared)
    print(text)
    if "--update" in arguments:
        _BASELINES.write_text(json.dumps(found, indent=1) + "\n")
        _BASELINES.with_suffix(".md").write_text(text)
    problems = drift(found, json.loads(_BASELINES.read_text()))
    problems += [
        f"{r['bundle']}: other output than at export" for r in report["bundles"] if not r["parity"]["ok"]
    ]
    problems += [f"{r.what}: {r.found:.3f}, above {r.target}" for r in compared if r.found > r.target]
    print("\n".join(problems) or f"all counts within {TOLERANCE:.0%} of {_BASELINES.name}")
    return 1 if problems else 0


def export() -> list[Bundle]:
    """Writes all bundles to build/arm/bundles."""
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
    """Of labels: ours against the plain ONNX path, with pre-processing. Of logits8: int8 against fp32."""
    lines = []
    for kind in FORMATS:
        ours = found[Case(*COMPARED, kind).folder]["together"]
        lines.append(Ratio(f"labels, {kind} against plain ONNX", ours / found[PLAIN]["together"], 0.19))
    for kind in INT8_FORMATS:
        whole, short = (found[Case(*COMPARED, kind, p).folder]["network"] for p in ("fp32", "int8"))
        lines.append(Ratio(f"logits8, {kind}, int8 against fp32", short / whole, 0.40))
    return lines


def ratio_table(lines: Sequence[Ratio]) -> str:
    """The ratios of SeaFormer-B at 512x512 in Markdown."""
    head = ["| ratio of instructions, SeaFormer-B at 512x512 | found | at most |", "|---|---|---|"]
    rows = [f"| {line.what} | {line.found:.3f} | {line.target:.2f} |" for line in lines]
    return "\n".join([*head, *rows]) + "\n"


def counts(report: dict[str, Any]) -> Counts:
    """Median millions of instructions by bundle and step."""
    return {
        record["bundle"]: {step: round(figures["median"], 4) for step, figures in record["summary"].items()}
        for record in report["bundles"]
    }


def drift(found: Counts, expected: Counts) -> list[str]:
    """A line for every count that is off its baseline, or has none, or is missing."""
    lines = [f"{name}: not counted" for name in expected.keys() - found.keys()]
    for name, steps in found.items():
        for step, count in steps.items():
            baseline = expected.get(name, {}).get(step)
            if baseline is None:
                lines.append(f"{name}, {step}: {count} M instructions, no baseline; add it with --update")
            elif abs(count - baseline) > max(TOLERANCE * baseline, TOLERANCE * _FLOOR):
                lines.append(
                    f"{name}, {step}: {count} M instructions, {count / baseline - 1:+.1%} off {baseline}"
                )
    return sorted(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
