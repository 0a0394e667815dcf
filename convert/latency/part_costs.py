"""The cost that each part of a network adds to the whole."""

import statistics
from typing import Any


def costs(report: dict[str, Any]) -> dict[str, float]:
    """Returns the cost of every part, and of pre- and post-processing, in the unit of the report.

    Args:
        report: A report of `turns.measure`; each bundle is the network up to one more part, the last one is the
            whole network.

    Returns:
        Name of the part -> the difference of the median costs of the network with and without it.
    """
    networks = [statistics.median(record["samples"]["network"]) for record in report["bundles"]]
    parts = {"pre-processing": statistics.median(report["bundles"][-1]["samples"]["pre"])}
    before = 0.0
    for record, network in zip(report["bundles"], networks, strict=True):
        parts[record["bundle"]] = network - before
        before = network
    parts["post-processing"] = statistics.median(report["bundles"][-1]["samples"]["post"])
    return parts


def table(report: dict[str, Any]) -> str:
    """Returns `costs`, and the share of each in the whole, as a Markdown table."""
    parts = costs(report)
    whole = sum(parts.values())
    lines = [f"| part | {report['unit']} | share % |", "|---|---|---|"]
    lines += [f"| {part} | {cost:.4g} | {100 * cost / whole:.1f} |" for part, cost in parts.items()]
    return "\n".join([*lines, f"| whole | {whole:.4g} | 100.0 |"]) + "\n"
