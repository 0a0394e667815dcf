"""The deployment table: medians, their ratios, and the targets that they are held against."""

import json
import re
import statistics
from collections.abc import Mapping
from typing import Any, NamedTuple

from convert.bundle import FORMATS
from experiments import measure
from experiments.deployment_sides import EAGER, INT8, ONNX_LABELS, PLAIN, PLAIN_LABELS

Medians = dict[str, dict[str, float]]  # side -> quantity, "network" or "labels" -> ms
_INT8_SIDES = tuple(f"{kind} int8" for kind in INT8)


class Target(NamedTuple):
    """A ratio of medians: the fastest of `sides` against the side `baseline`, for the models `sizes`."""

    text: str
    task: str
    sizes: tuple[str, ...]
    quantity: str
    sides: tuple[str, ...]
    baseline: str
    aim: float


_ALL, _BASE = ("tiny", "small", "base", "large"), ("base",)
TARGETS = (
    Target("classifier, against eager", "classification", _ALL, "network", FORMATS, EAGER, 4.0),
    Target("`logits8`, against eager", "segmentation", _BASE, "network", FORMATS, EAGER, 4.0),
    Target("`logits8`, against plain ONNX", "segmentation", _BASE, "network", FORMATS, PLAIN, 1.05),
    Target("`labels` with the kernel, against eager", "segmentation", _BASE, "labels", FORMATS, EAGER, 14.0),
    Target(
        "`labels` with the kernel, against plain ONNX",
        "segmentation",
        _BASE,
        "labels",
        FORMATS,
        PLAIN_LABELS,
        18.0,
    ),
    Target(
        "`labels` in pure ONNX, against eager", "segmentation", _BASE, "labels", (ONNX_LABELS,), EAGER, 8.0
    ),
    Target(
        "`labels` in pure ONNX, against plain ONNX",
        "segmentation",
        _BASE,
        "labels",
        (ONNX_LABELS,),
        PLAIN_LABELS,
        11.0,
    ),
    Target("`logits8` in int8, against eager", "segmentation", _BASE, "network", _INT8_SIDES, EAGER, 7.0),
)


def medians(report: Mapping[str, Any]) -> Medians:
    """Milliseconds of every side: "network" to logits or logits8, "labels" to the class map, where it has them."""
    found: Medians = {}
    for record in report["bundles"]:
        network, post = record["samples"]["network"], record["samples"]["post"]
        taken = {}
        if record["output"] != "labels":
            taken["network"] = statistics.median(network)
        if record["task"] == "segmentation" and record["bundle"] != PLAIN:
            taken["labels"] = statistics.median(map(sum, zip(network, post, strict=True)))
        found[record["bundle"]] = taken
    return found


def rows(size: str, report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for every side with the times that it has, and how many times as fast as the two baselines it is."""
    found = medians(report)
    # Of the two plain graphs, each is the baseline of what it ends in.
    plain = {"network": PLAIN, "labels": PLAIN_LABELS}
    names = {"network": "`logits8`", "labels": "`labels`"}
    if report["bundles"][0]["task"] == "classification":
        names = {"network": "logits"}
    table = []
    for side, taken in found.items():
        row: dict[str, Any] = {"model": size, "side": side}
        for quantity, name in names.items():
            own = taken.get(quantity)
            row[f"{name} ms"] = "" if own is None else own
            for column, baseline in (("x eager", EAGER), ("x plain ONNX", plain[quantity])):
                row[f"{name} {column}"] = "" if own is None else found[baseline][quantity] / own
        table.append(row)
    return table


def against_targets(reports: Mapping[tuple[str, str], Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every target of the models that were measured: (task, size) -> report."""
    results = []
    for target in TARGETS:
        for size in target.sizes:
            if (target.task, size) not in reports:
                continue
            found = medians(reports[target.task, size])
            fastest = min(target.sides, key=lambda side: found[side][target.quantity])
            ratio = found[target.baseline][target.quantity] / found[fastest][target.quantity]
            results.append(
                {
                    "target": f"{size} {target.text}",
                    "aim": target.aim,
                    "ratio": ratio,
                    "by": fastest,
                    "met": "yes" if ratio >= target.aim else "**no**",
                }
            )
    return results


def write(name: str, text: str, figures: dict[str, Any]) -> None:
    """Writes results/<name>.md and .json: the machine and the figures, each list of numbers on one line."""
    content = json.dumps({"machine": measure.machine(), **figures}, indent=1)
    joined = re.sub(r"\[[\d\s.,e-]+\]", lambda match: re.sub(r"\s+", " ", match[0]), content)
    (measure.RESULTS / f"{name}.json").write_text(joined + "\n")
    (measure.RESULTS / f"{name}.md").write_text(text)
    print(text)


def rounded(report: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a measurement with its samples in whole microseconds."""
    bundles = [
        {
            **record,
            "samples": {
                step: [round(value, 3) for value in record["samples"][step]] for step in ("network", "post")
            },
        }
        for record in report["bundles"]
    ]
    return {**report, "bundles": bundles}
