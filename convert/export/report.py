"""Makes the report of an export: numbers for programs (report.json) and text for people (report.md)."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from convert.bundle import Bundle
from convert.export.parity import TOLERANCES, Comparison
from convert.runtimes.base import Network

_AGREE = {
    "classification": "Classes agree: share of images that have the same class in both models.",
    "segmentation": "Classes agree: share of pixels at the input's size that have the same class in both models.",
    "detection": "Box deltas count as logits. Classes agree: share of boxes that the other model has, too.",
}
_TIMED, _WARM_UP = 30, 5  # Runs of each network; those of the warm-up are not counted.


def record(
    bundle: Bundle,
    comparison: Comparison,
    milliseconds: float | None,
    outside: Mapping[str, int],
    score: float | None,
) -> dict[str, Any]:
    """Returns the entry of one precision in the report.

    Args:
        bundle: The model in this precision.
        comparison: Its comparison with the trained model.
        milliseconds: Its time for one image on this machine; None if it does not run here.
        outside: Operators outside the runtime's fast path: name -> count.
        score: Score on the validation set in percent; None without such a set.
    """
    return {
        "precision": bundle.precision,
        "bytes": bundle.size(),
        "score": score,
        **comparison._asdict(),
        "outside_delegate": dict(outside),
        "milliseconds_here": milliseconds,
    }


def medians(networks: Mapping[str, Network], image: np.ndarray) -> dict[str, float]:
    """Returns the median time of each network for one image, in milliseconds.

    The networks take turns, so that a slower phase of the machine affects all of them.
    """
    taken: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(_WARM_UP + _TIMED):
        for name, network in networks.items():
            start = time.perf_counter()
            network(image)
            taken[name].append(1e3 * (time.perf_counter() - start))
    return {name: float(np.median(values[_WARM_UP:])) for name, values in taken.items()}


def score(report: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `Bundle.score`."""
    if report["metric"] is None:
        return {}
    (row,) = (row for row in report["precisions"] if row["precision"] == report["precision"])
    return {"metric": report["metric"], "percent": row["score"], "images": report["validation_images"]}


def text(report: Mapping[str, Any]) -> str:
    """Returns the report as Markdown."""
    height, width = report["input_size"]
    # What was exported, the table, how to read it, and the limits.
    lines = [
        f"# {report['name']}, {report['task']}, for {report['format']}",
        "",
        f"Output {report['output']} in {report['precision']}, for images of {height}x{width} in "
        f"{report['input_type']}. {_tail(report)}Made from "
        f"{report['source']['file']} (SHA-256 {report['source']['sha256'][:16]}) with "
        + ", ".join(f"{name} {version}" for name, version in report["versions"].items())
        + ".",
        "",
        *_table(report),
        "",
        f"The model {_how(report)} and is compared with the trained model, which runs in JAX in float32, "
        f"on {report['precisions'][0]['images']} images. Largest difference: of any logit. Largest logit: of the "
        "trained model. Relative RMS: root mean square of the differences, divided by that of the logits. "
        f"{_AGREE[report['task']]} {_last_columns(report)}",
        "",
        _limits(report),
    ]
    if report["remark"]:
        lines += ["", report["remark"]]
    return "\n".join(lines) + "\n"


def _how(report: Mapping[str, Any]) -> str:
    if report["format"] == "web":
        return "runs in ONNX Runtime, which reads the same file as the page,"
    return f"runs in {report['format']}" if report["runs_here"] else "is evaluated in PyTorch"


def _last_columns(report: Mapping[str, Any]) -> str:
    """Returns the sentences on the columns "outside" and "ms"."""
    if not report["runs_here"]:
        return "Outside and ms: unknown, because the model was not run."
    return (
        "Outside: operators that the runtime's fast path does not take. ms: median of "
        f"{_TIMED} runs of the model file alone with one thread, on the machine that exported it, which may have "
        "been busy; use `python -m convert.latency` for careful measurements."
    )


def _tail(report: Mapping[str, Any]) -> str:
    """Returns the sentence on the code that has to follow the model file, if there is such code."""
    if not report["tail"]:
        return ""
    made = "boxes" if report["task"] == "detection" else "labels"
    return f"`{report['tail']}.c` in this bundle turns the model's {report['output']} into {made}. "


def _table(report: Mapping[str, Any]) -> list[str]:
    """Returns the lines of the table: a row per precision, with a column for the score if there is one."""
    metric = report["metric"]
    scored = f" {metric} % |" if metric else ""
    rows = [
        f"| precision | MB |{scored} largest difference | largest logit | relative RMS | classes agree | outside "
        "| ms |",
        "|---|---:|" + "---:|" * (6 + bool(metric)),
    ]
    if metric:  # The score of the trained model comes first, for comparison.
        rows.append(f"| trained, JAX | | {report['trained_score']:.2f} | | | | | | |")
    for row in report["precisions"]:
        score = f" {row['score']:.2f} |" if metric else ""
        outside = ", ".join(f"{count} {name}" for name, count in row["outside_delegate"].items()) or "none"
        outside = outside if report["runs_here"] else ""
        # A model that returns labels has no logits to compare, so these cells are empty.
        numbers = (_number(row[key], ".2e") for key in ("largest", "magnitude", "relative_rms"))
        rows.append(
            f"| {row['precision']} | {row['bytes'] / 1e6:.2f} |{score} {' | '.join(numbers)} | "
            f"{100 * row['agreement']:.3f} % | {outside} | {_number(row['milliseconds_here'], '.2f')} |"
        )
    return rows


def _limits(report: Mapping[str, Any]) -> str:
    """Returns the sentence on the limits that the model has kept to."""
    if report["precision"] == "int8":
        return (
            f"Limit: {report['metric']} of int8 may be at most {report['max_drop']} points lower than that of the "
            f"trained model, on the {report['validation_images']} images of {report['validation']}. int8 was "
            f"calibrated on {report['calibration_images']} images of {report['calibration']}."
        )
    allowed = TOLERANCES[report["precision"]].export
    return (
        f"Limits: the largest difference may be {allowed.largest:.0e} of the largest logit, and the relative RMS "
        f"{allowed.relative_rms:.0e}; {100 * allowed.agreement:.2f} % of the classes must agree."
    )


def _number(value: float | None, style: str) -> str:
    return "" if value is None else format(value, style)
