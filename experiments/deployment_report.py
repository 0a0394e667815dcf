"""The deployment table: medians, their ratios, and the targets for the ratios."""

import json
import re
import statistics
from collections.abc import Mapping
from typing import Any, NamedTuple

from convert.bundle import NATIVE
from experiments import measure
from experiments.deployment_sides import EAGER, INT8, ONNX_LABELS, PLAIN, PLAIN_LABELS

Medians = dict[str, dict[str, float]]  # side -> quantity ("network" or "labels") -> ms
_INT8_SIDES = tuple(f"{kind} int8" for kind in INT8)


class Target(NamedTuple):
    """A target for a ratio of medians: time of the side `baseline` / time of the fastest of `sides`.

    Attributes:
        text: Description for the table; the size comes before it.
        task: Task of the models.
        sizes: Sizes of the models that have this target.
        quantity: "network" (time to the logits) or "labels" (time to the class map).
        sides: The sides of which the fastest counts.
        baseline: The side that they are compared with.
        aim: Smallest ratio that meets the target.
    """

    text: str
    task: str
    sizes: tuple[str, ...]
    quantity: str
    sides: tuple[str, ...]
    baseline: str
    aim: float


_ALL, _BASE = ("tiny", "small", "base", "large"), ("base",)
TARGETS = (
    Target("classifier, against eager", "classification", _ALL, "network", NATIVE, EAGER, 4.0),
    Target("`logits8`, against eager", "segmentation", _BASE, "network", NATIVE, EAGER, 4.0),
    Target("`logits8`, against plain ONNX", "segmentation", _BASE, "network", NATIVE, PLAIN, 1.05),
    Target("`labels` with the kernel, against eager", "segmentation", _BASE, "labels", NATIVE, EAGER, 14.0),
    Target(
        "`labels` with the kernel, against plain ONNX",
        "segmentation",
        _BASE,
        "labels",
        NATIVE,
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
    """Returns the median milliseconds of every side.

    "network" is the time to logits or logits8, "labels" the time to the class map. A side has only the quantities
    that it computes.
    """
    times: Medians = {}
    for record in report["bundles"]:
        network, post = record["samples"]["network"], record["samples"]["post"]
        own = {}
        if record["output"] != "labels":
            own["network"] = statistics.median(network)
        if record["task"] == "segmentation" and record["bundle"] != PLAIN:
            own["labels"] = statistics.median(map(sum, zip(network, post, strict=True)))
        times[record["bundle"]] = own
    return times


def rows(size: str, report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns a row for every side: its times and its speed-ups over the two baselines."""
    times = medians(report)
    # There are two plain graphs; each is the baseline for the quantity that it ends in.
    plain = {"network": PLAIN, "labels": PLAIN_LABELS}
    names = {"network": "`logits8`", "labels": "`labels`"}
    if report["bundles"][0]["task"] == "classification":
        names = {"network": "logits"}
    table = []
    for side, own in times.items():
        row: dict[str, Any] = {"model": size, "side": side}
        for quantity, name in names.items():
            milliseconds = own.get(quantity)
            row[f"{name} ms"] = "" if milliseconds is None else milliseconds
            for column, baseline in (("x eager", EAGER), ("x plain ONNX", plain[quantity])):
                row[f"{name} {column}"] = (
                    "" if milliseconds is None else times[baseline][quantity] / milliseconds
                )
        table.append(row)
    return table


def against_targets(reports: Mapping[tuple[str, str], Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns a row for every target of the models that were measured.

    Args:
        reports: (task, size) -> report of the measurement.
    """
    results = []
    for target in TARGETS:
        for size in target.sizes:
            if (target.task, size) not in reports:
                continue
            times = medians(reports[target.task, size])
            fastest = min(target.sides, key=lambda side: times[side][target.quantity])
            ratio = times[target.baseline][target.quantity] / times[fastest][target.quantity]
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
    """Writes results/<name>.md with the text, and .json with the machine and the figures."""
    content = json.dumps({"machine": measure.machine(), **figures}, indent=1)
    # Each list of numbers goes on one line, so that the file stays readable.
    joined = re.sub(r"\[[\d\s.,e-]+\]", lambda match: re.sub(r"\s+", " ", match[0]), content)
    (measure.RESULTS / f"{name}.json").write_text(joined + "\n")
    (measure.RESULTS / f"{name}.md").write_text(text)
    print(text)


def rounded(report: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the report with its samples rounded to whole microseconds."""
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
