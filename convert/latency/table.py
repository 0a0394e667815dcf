"""The record of a measurement as a Markdown table and JSON."""

import json
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

_COLUMNS = ("bundle", "step", "min", "median", "p90", "spread %", "against the first")


def write(report: dict[str, Any], out: pathlib.Path) -> str:
    """Writes OUT.json and OUT.md; returns the text of the latter."""
    for record in report["bundles"]:
        record["summary"] = {step: summary(values) for step, values in record["samples"].items()}
    text = markdown(report)
    out.with_name(out.name + ".json").write_text(json.dumps(report, indent=1) + "\n")
    out.with_name(out.name + ".md").write_text(text)
    return text


def summary(samples: Sequence[float]) -> dict[str, float]:
    """Returns min, median, p90 and spread: the distance of the quartiles as a fraction of the median."""
    median = statistics.median(samples)
    quartiles = statistics.quantiles(samples, n=4, method="inclusive")
    return {
        "min": min(samples),
        "median": median,
        "p90": statistics.quantiles(samples, n=10, method="inclusive")[-1],
        "spread": (quartiles[2] - quartiles[0]) / median if median else 0.0,
    }


def markdown(report: dict[str, Any]) -> str:
    """The table with the facts that its figures rest on."""
    facts, unit = report["facts"], report["unit"]
    about = [
        str(facts[key]) for key in ("cpu", "soc", "system", "kernel", "abi", "emulator") if facts.get(key)
    ]
    schedule = report["schedule"]
    lines = [
        f"`{report['device']}`: {', '.join(about)}; cores {facts['cores']}; {report['date']}.",
        f"{unit} per run, {schedule['rounds'] * schedule['runs']} runs in {schedule['rounds']} rounds of turns.",
        *_condition(report["condition"]),
        "",
        "| " + " | ".join(_COLUMNS) + " |",
        "|" + "---|" * len(_COLUMNS),
    ]
    first = report["bundles"][0]
    for record in report["bundles"]:
        lines += [
            _row(record, first, step) for step in record["samples"] if record["summary"][step]["median"]
        ]
    lines += ["", *map(_parity, report["bundles"])]
    return "\n".join(lines) + "\n"


def step_name(record: dict[str, Any], step: str) -> str:
    """What a step computes: a time without that is not comparable."""
    final = "class" if record["task"] == "classification" else "labels"
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
    # Where one has the labels in its graph and the other behind it, neither step is the other's.
    comparable = base and (step in ("pre", "together") or record["output"] == first["output"])
    cells += [f"{100 * figures['spread']:.1f}", f"{figures['median'] / base:.3f}" if comparable else "-"]
    return "| " + " | ".join(cells) + " |"


def _parity(record: dict[str, Any]) -> str:
    found, peak = record["parity"], record["peak_bytes"]
    return (
        f"- {record['bundle']}: {record['format']}, {record['precision']}, input "
        f"{'x'.join(map(str, record['input_size']))}; {'same output' if found['ok'] else 'OTHER OUTPUT'} "
        f"as at export: largest difference {found['difference']:.1e} of the largest value, "
        f"{100 * found['agreement']:.3f} % of the classes agree"
        + (f"; peak memory {peak / 2**20:.0f} MiB." if peak else ".")
    )


def _condition(condition: dict[str, dict[str, Any]]) -> list[str]:
    lines = []
    for when, found in condition.items():
        hottest = max(found.get("celsius", {"": None}).values())
        told = [f"governor {found['governor']}"] if "governor" in found else []
        told += ["frequency limited: throttled"] if found.get("limited") else []
        told += [f"hottest zone {hottest:.1f} C"] if hottest is not None else []
        lines.append(f"{when.capitalize()}: {', '.join(told) or 'no governor or temperature to read'}.")
    return lines
