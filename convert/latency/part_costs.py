"""What each part of a network adds to the cost of the whole."""

import statistics
from typing import Any


def costs(report: dict[str, Any]) -> dict[str, float]:
    """What each part adds to the median, with pre- and post-processing, in the unit of the report."""
    networks = [statistics.median(record["samples"]["network"]) for record in report["bundles"]]
    parts = {"pre-processing": statistics.median(report["bundles"][-1]["samples"]["pre"])}
    before = 0.0
    for record, network in zip(report["bundles"], networks, strict=True):
        parts[record["bundle"]] = network - before
        before = network
    parts["post-processing"] = statistics.median(report["bundles"][-1]["samples"]["post"])
    return parts


def table(report: dict[str, Any]) -> str:
    """`costs`, and the share of each in the whole."""
    parts = costs(report)
    whole = sum(parts.values())
    lines = [f"| part | {report['unit']} | share % |", "|---|---|---|"]
    lines += [f"| {part} | {cost:.4g} | {100 * cost / whole:.1f} |" for part, cost in parts.items()]
    return "\n".join([*lines, f"| whole | {whole:.4g} | 100.0 |"]) + "\n"
