"""Counts ARM instructions of seeded models in LiteRT, ExecuTorch and ncnn and compares with the committed counts.

python -m convert.arm.check [--update]

`make arm-check` sets up what it needs. Exit status 1 where a count is more than 1 % off baselines.json or an output
differs from PyTorch's; with --update the counts are written there, and the table to baselines.md.
"""

import json
import sys
from collections.abc import Sequence
from typing import Any

from convert import latency_report
from convert.arm import models, setup
from convert.bundle import Bundle
from convert.devices.qemu import Qemu
from convert.measure import measure

FORMATS = ("litert", "executorch", "ncnn")
MODELS = (
    ("classification", "seaformer_tiny", (224, 224)),
    ("classification", "seaformer_base", (224, 224)),
    ("segmentation", "seaformer_tiny", (512, 512)),
    ("segmentation", "seaformer_base", (512, 512)),
)
TOLERANCE = 0.01  # of a count
_FLOOR = 0.1  # Millions of instructions; of smaller steps Python is the larger part.
_BASELINES = setup.SOURCES / "baselines.json"


def main(arguments: Sequence[str]) -> int:
    report = measure(Qemu(threads=1), export(), runs=1)
    text = latency_report.write(report, setup.BUILD / "check")
    print(text)
    found = counts(report)
    if "--update" in arguments:
        _BASELINES.write_text(json.dumps(found, indent=1) + "\n")
        _BASELINES.with_suffix(".md").write_text(text)
    problems = drift(found, json.loads(_BASELINES.read_text()))
    problems += [
        f"{r['bundle']}: other output than PyTorch's" for r in report["bundles"] if not r["parity"]["ok"]
    ]
    print("\n".join(problems) or f"all counts within {TOLERANCE:.0%} of {_BASELINES.name}")
    return 1 if problems else 0


def export() -> list[Bundle]:
    """Bundles of all models in all formats."""
    bundles = []
    for task, name, size in MODELS:
        model = models.seeded(task, name, size)
        for kind in FORMATS:
            folder = setup.BUILD / "bundles" / f"{task}_{name}_{kind}"
            print(f"export {folder.name} ...", flush=True)
            bundles.append(models.write_bundle(model, folder, task, name, kind, size))
    return bundles


def counts(report: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Median millions of instructions by bundle and step."""
    return {
        record["bundle"]: {step: round(figures["median"], 4) for step, figures in record["summary"].items()}
        for record in report["bundles"]
    }


def drift(found: dict[str, dict[str, float]], expected: dict[str, dict[str, float]]) -> list[str]:
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
