"""Writes the report of a measurement as a Markdown table and as JSON."""

import json
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

from seaformer_jax.errors import UserError

_COLUMNS = ("bundle", "step", "min", "median", "p90", "spread %", "against the first")


def location(path: str) -> pathlib.Path:
    """Returns the path of the results, to which ".json" and ".md" will be appended.

    Raises:
        UserError: `path` has no file name, or its folder does not exist.
    """
    out = pathlib.Path(path)
    if not out.name:
        raise UserError(f"--out is {path!r}; expected a path without suffix, e.g. results/latency")
    if not out.parent.is_dir():
        raise UserError(f"--out {out}: the folder {out.parent} does not exist; create it first")
    return out


def write(report: dict[str, Any], out: pathlib.Path) -> str:
    """Adds a summary of the samples to every bundle of the report and writes OUT.json and OUT.md.

    Args:
        report: A report of `turns.measure`.
        out: Path of the files, without ".json" and ".md".

    Returns:
        The text of OUT.md.
    """
    for record in report["bundles"]:
        record["summary"] = {step: summary(values) for step, values in record["samples"].items()}
    text = markdown(report)
    out.with_name(out.name + ".json").write_text(json.dumps(report, indent=1) + "\n")
    out.with_name(out.name + ".md").write_text(text)
    return text


def summary(samples: Sequence[float]) -> dict[str, float]:
    """Returns "min", "median", "p90" (90th percentile) and "spread" of the samples.

    The spread is the interquartile range as a fraction of the median; it is 0 if the median is 0.
    """
    median = statistics.median(samples)
    quartiles = statistics.quantiles(samples, n=4, method="inclusive")
    return {
        "min": min(samples),
        "median": median,
        "p90": statistics.quantiles(samples, n=10, method="inclusive")[-1],
        "spread": (quartiles[2] - quartiles[0]) / median if median else 0.0,
    }


def markdown(report: dict[str, Any]) -> str:
    """Returns the table, below the device, schedule and condition that it was measured with."""
    facts, unit = report["facts"], report["unit"]
    # 1. What was measured on, and how: without it the figures cannot be compared.
    device_facts = [
        str(facts[key]) for key in ("cpu", "soc", "system", "kernel", "abi", "emulator") if facts.get(key)
    ]
    schedule = report["schedule"]
    lines = [
        f"`{report['device']}`: {', '.join(device_facts)}; cores {facts['cores']}; {report['date']}.",
        f"{unit} per run; {schedule['rounds'] * schedule['runs']} runs of each bundle; the bundles take turns in "
        f"{schedule['rounds']} round(s).",
        *_condition(report["condition"]),
        "",
        "| " + " | ".join(_COLUMNS) + " |",
        "|" + "---|" * len(_COLUMNS),
    ]
    # 2. One row per bundle and step. A step that takes no time, such as one that a device does not run, has no row.
    first = report["bundles"][0]
    for record in report["bundles"]:
        lines += [
            _row(record, first, step) for step in record["samples"] if record["summary"][step]["median"]
        ]
    # 3. Whether each bundle computed the same as at export.
    lines += ["", *map(_parity, report["bundles"])]
    return "\n".join(lines) + "\n"


def step_name(record: dict[str, Any], step: str) -> str:
    """Returns the name of a step with what it computes: times are comparable only for the same output."""
    final = {"classification": "class", "segmentation": "labels", "detection": "boxes"}[record["task"]]
    network = "logits" if record["task"] == "classification" else record["output"]
    return {
        "pre": "pre-processing",
        "network": f"network: `{network}`",
        "post": f"post-processing: `{final}`",
        "together": f"together: `{final}`",
    }[step]


def _row(record: dict[str, Any], first: dict[str, Any], step: str) -> str:
    figures, base = record["summary"][step], first["summary"][step]["median"]
    cells = [record["bundle"], step_name(record, step)]
    cells += [f"{figures[key]:.4g}" for key in ("min", "median", "p90")]
    # If one bundle computes labels inside its graph and the other one after it, their steps do different work.
    comparable = base and (step in ("pre", "together") or record["output"] == first["output"])
    cells += [f"{100 * figures['spread']:.1f}", f"{figures['median'] / base:.3f}" if comparable else "-"]
    return "| " + " | ".join(cells) + " |"


def _parity(record: dict[str, Any]) -> str:
    parity, peak = record["parity"], record["peak_bytes"]
    # Labels are equal or not; only numbers have a difference.
    difference = (
        ""
        if record["output"] == "labels"
        else f"largest difference {parity['difference']:.1e} of the largest value, "
    )
    return (
        f"- {record['bundle']}: {record['format']}, {record['precision']}, input "
        f"{'x'.join(map(str, record['input_size']))}; "
        f"{'same output as at export' if parity['ok'] else 'OUTPUT DIFFERS FROM EXPORT'}: "
        f"{difference}{100 * parity['agreement']:.3f} % of the classes agree"
        + (f"; peak memory {peak / 2**20:.0f} MiB." if peak else ".")
    )


def _condition(condition: dict[str, dict[str, Any]]) -> list[str]:
    """Returns one line for the device's condition before the measurement and one for that after it."""
    lines = []
    for when, state in condition.items():
        hottest = max(state.get("celsius", {"": None}).values())
        parts = [f"governor {state['governor']}"] if "governor" in state else []
        parts += ["frequency limited: throttled"] if state.get("limited") else []
        parts += [f"hottest zone {hottest:.1f} C"] if hottest is not None else []
        lines.append(f"{when.capitalize()}: {', '.join(parts) or 'no governor or temperature reported'}.")
    return lines
