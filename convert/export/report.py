"""The report of an export: numbers for programs, tables for people."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from convert.bundle import Bundle
from convert.export.parity import TOLERANCES, Comparison
from convert.runtimes.base import Network

_TIMED, _WARM_UP = 30, 5


def record(
    bundle: Bundle,
    comparison: Comparison,
    milliseconds: float,
    outside: Mapping[str, int],
    score: float | None,
) -> dict[str, Any]:
    """What the report says of one precision; `score` in percent, None where there is no validation set."""
    return {
        "precision": bundle.precision,
        "bytes": bundle.size(),
        "score": score,
        **comparison._asdict(),
        "outside_delegate": dict(outside),
        "milliseconds_here": milliseconds,
    }


def medians(networks: Mapping[str, Network], image: np.ndarray) -> dict[str, float]:
    """Milliseconds of one image, the median of each network's runs; they take turns."""
    taken: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(_WARM_UP + _TIMED):
        for name, network in networks.items():
            start = time.perf_counter()
            network(image)
            taken[name].append(1e3 * (time.perf_counter() - start))
    return {name: float(np.median(values[_WARM_UP:])) for name, values in taken.items()}


def text(report: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    height, width = report["input_size"]
    lines = [
        f"# {report['name']}, {report['task']}, for {report['format']}",
        "",
        f"{report['output']} in {report['precision']} of images of {height}x{width}, made of "
        f"{report['source']['file']} (SHA-256 {report['source']['sha256'][:16]}) with "
        + ", ".join(f"{name} {version}" for name, version in report["versions"].items())
        + ".",
        "",
        *_table(report),
        "",
        f"Compared in {report['format']} with the trained model in JAX in float32, on "
        f"{report['precisions'][0]['images']} images: largest difference of a logit, and the largest logit; root "
        "mean square of the differences over that of the logits; share of equal classes, of images or of pixels at "
        "the size of the input. Outside: operators that the runtime's fast path does not take. ms: median of "
        f"{_TIMED} runs of the model file alone, with one thread, on the machine that exported it, whatever else it "
        "did; `python -m convert.latency` measures with care.",
        "",
        _limits(report),
    ]
    return "\n".join(lines) + "\n"


def _table(report: Mapping[str, Any]) -> list[str]:
    metric = report["metric"]
    scored = f" {metric} % |" if metric else ""
    rows = [
        f"| precision | MB |{scored} largest difference | of | relative RMS | classes agree | outside | ms |",
        "|---|---:|" + "---:|" * (6 + bool(metric)),
    ]
    if metric:
        rows.append(f"| trained, JAX | | {report['trained_score']:.2f} | | | | | | |")
    for row in report["precisions"]:
        score = f" {row['score']:.2f} |" if metric else ""
        outside = ", ".join(f"{count} {name}" for name, count in row["outside_delegate"].items()) or "none"
        numbers = (_number(row[key], ".2e") for key in ("largest", "magnitude", "relative_rms"))
        rows.append(
            f"| {row['precision']} | {row['bytes'] / 1e6:.2f} |{score} {' | '.join(numbers)} | "
            f"{100 * row['agreement']:.3f} % | {outside} | {row['milliseconds_here']:.2f} |"
        )
    return rows


def _limits(report: Mapping[str, Any]) -> str:
    if report["precision"] == "int8":
        return (
            f"{report['metric']} of int8 may be {report['max_drop']} points lower than that of the trained model, on "
            f"the {report['validation_images']} images of {report['validation']}; calibrated with "
            f"{report['calibration_images']} images of {report['calibration']}."
        )
    allowed = TOLERANCES[report["precision"]].export
    return (
        f"Limits: {allowed.largest:.0e} of the largest logit, relative RMS {allowed.relative_rms:.0e}, "
        f"{100 * allowed.agreement:.2f} % of the classes."
    )


def _number(value: float | None, style: str) -> str:
    return "" if value is None else format(value, style)
