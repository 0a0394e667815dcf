"""The time of every kind of operator in a bundle, as its runtime counts it: ONNX Runtime has a profiler."""

import collections
import json
import pathlib
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from convert.bundle import Bundle
from convert.runtimes import base, registry
from seaformer_jax.errors import UserError

_WARM_UP = 5


def measure(bundle: Bundle, runs: int, threads: int) -> dict[str, dict[str, float]]:
    """Returns kind of operator -> its "count" in the graph and its "ms" in a run, the costliest first.

    The operators are those that the runtime makes of the graph when it loads it: a convolution has its activation in
    it. Profiling takes time, too, so that the sum is above the time of the network.

    Args:
        bundle: A bundle of ONNX Runtime.
        runs: Number of runs; the result is the median.
        threads: Threads of the runtime.

    Raises:
        UserError: The runtime of the bundle does not tell the time of operators.
    """
    if bundle.format not in ("onnx", "web"):
        raise UserError(
            f"--by operator: {bundle.format} does not tell the time of its operators in Python; export "
            f"{bundle.folder} with --format onnx"
        )
    onnxruntime = registry.run_module("onnx", "onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    with tempfile.TemporaryDirectory() as folder:
        options.enable_profiling, options.profile_file_prefix = True, f"{folder}/profile"
        session = onnxruntime.InferenceSession(bundle.model, options, providers=["CPUExecutionProvider"])
        image = base.in_layout(bundle.reference()[0], bundle.layout)
        for _ in range(_WARM_UP + runs):
            session.run(None, {base.INPUT: image})
        return summary(json.loads(pathlib.Path(session.end_profiling()).read_text()), _WARM_UP)


def summary(events: Sequence[Mapping[str, Any]], warmup: int) -> dict[str, dict[str, float]]:
    """Returns `measure` of the events in ONNX Runtime's profile, which lists operators in the order of their runs."""
    # Node -> its kind and its microseconds, run after run.
    kinds, spent = {}, collections.defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            kinds[event["name"]] = event["args"]["op_name"]
            spent[event["name"]].append(event["dur"])
    found = collections.defaultdict(lambda: {"count": 0, "ms": 0.0})
    for name, kind in kinds.items():
        found[kind]["count"] += 1
        found[kind]["ms"] += statistics.median(spent[name][warmup:]) / 1000
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
