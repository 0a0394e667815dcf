"""The time of every kind of operator in a bundle, as its runtime counts it."""

import collections
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from convert.bundle import Bundle
from convert.latency import profilers
from convert.latency.profilers import Operator


def measure(bundle: Bundle, runs: int, threads: int) -> dict[str, dict[str, float]]:
    """Returns kind of operator -> its "count" in the graph and its "ms" in a run, the costliest first.

    Args:
        bundle: A bundle whose runtime `profilers.operators` takes.
        runs: Number of runs.
        threads: Threads of the runtime.
    """
    return summary(profilers.operators(bundle, runs, threads))


def summary(operators: Iterable[Operator]) -> dict[str, dict[str, float]]:
    """Returns `measure` of the operators of a bundle."""
    found = collections.defaultdict(lambda: {"count": 0, "ms": 0.0})
    for operator in operators:
        found[operator.kind]["count"] += 1
        found[operator.kind]["ms"] += operator.ms
    return dict(sorted(found.items(), key=lambda entry: -entry[1]["ms"]))


def table(operators: Mapping[str, Mapping[str, float]]) -> str:
    """Returns the operators of one bundle as a Markdown table."""
    whole = sum(figures["ms"] for figures in operators.values())
    lines = ["| operator | count | ms | share % |", "|---|---:|---:|---:|"]
    lines += [
        f"| {kind} | {figures['count']} | {figures['ms']:.4g} | {100 * figures['ms'] / whole:.1f} |"
        for kind, figures in operators.items()
    ]
    return (
        "\n".join([*lines, f"| all | {sum(f['count'] for f in operators.values())} | {whole:.4g} | 100.0 |"])
        + "\n"
    )


def write(bundles: Sequence[Bundle], runs: int, threads: int, out: pathlib.Path) -> str:
    """Measures the bundles one after the other and writes OUT.json and OUT.md; returns the text of OUT.md."""
    found = {str(bundle.folder): measure(bundle, runs, threads) for bundle in bundles}
    parts = [
        f"{folder}: median of {runs} runs, {threads} thread(s)\n\n{table(ops)}"
        for folder, ops in found.items()
    ]
    text = "\n".join(parts)
    out.with_name(out.name + ".json").write_text(json.dumps(found, indent=1) + "\n")
    out.with_name(out.name + ".md").write_text(text)
    return text
