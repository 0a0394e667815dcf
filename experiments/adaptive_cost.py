"""Measures the extra cost of SeaFormer++'s adaptive block over the ICLR block: parameters, MACs, step, latency.

    python -m experiments.adaptive_cost [--formats onnx,litert,executorch,ncnn] [--rounds 9] [--runs 100]

Counts parameters and MACs of all sizes. Measures training step and latency of `base`; the ICLR model and SeaFormer++
take turns. The step is that of `experiments.train_speed`, on all cores of this process. The latency is that of the
network from image to logits on one pinned thread, in every runtime given by --formats; the others keep their figures
in the JSON, and with --rounds 0 so do the steps. On a CPU set GLIBC_TUNABLES=glibc.malloc.hugetlb=1 in the
environment, as for training. Prints the tables and writes experiments/results/adaptive_cost.json and .md.
"""

import argparse
import functools
import json
import pathlib
import statistics
import tempfile

import jax
from flax import nnx

from convert.bundle import NATIVE, Bundle
from convert.export import seeded_bundles
from convert.graph import seeded_networks
from convert.latency.devices import registry
from convert.latency.turns import measure as measure_bundles
from experiments import measure, sides
from seaformer_jax.models.macs import count_macs
from seaformer_jax.models.registry import create_model

INPUTS = {"classification": (224, 224), "segmentation": (512, 512)}  # Height and width.
BATCH = {"classification": 16, "segmentation": 2}  # Images of a training step.
PAIR = ("seaformer_base", "seaformer_plus_base")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--formats", default=",".join(NATIVE))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--runs", type=int, default=100)
    options = parser.parse_args()
    # Latencies come first, so that nothing that the training steps leave in memory affects them.
    path = measure.RESULTS / "adaptive_cost.json"
    known = json.loads(path.read_text()) if path.exists() else {"latencies": [], "steps": []}
    rows = {(row["task"], row["format"]): row for row in known["latencies"]}
    pairs = [(task, kind) for task in INPUTS for kind in NATIVE]
    rows |= {
        (task, kind): latency(task, kind, options.runs)
        for task, kind in pairs
        if kind in options.formats.split(",")
    }
    latencies = [rows[pair] for pair in pairs if pair in rows]
    counts = [count(task, size) for task in INPUTS for size in ("tiny", "small", "base", "large")]
    steps = [step(task, options.rounds) for task in INPUTS] if options.rounds else known["steps"]
    measure.write("adaptive_cost", {"counts": counts, "latencies": latencies, "steps": steps})
    text = "\n\n".join(
        [
            "# What the adaptive block costs",
            "`python -m experiments.adaptive_cost`. Percentages are the extra cost of SeaFormer++ over the ICLR "
            "model.",
            "## Parameters and MACs",
            measure.table(counts),
            "## Latency of `base` on one x86 thread, medians; the models take turns",
            measure.table(latencies),
            "## Training step of `base`, medians; the models take turns",
            measure.table(steps),
        ]
    )
    (measure.RESULTS / "adaptive_cost.md").write_text(text + "\n")
    print(text)


def count(task: str, size: str) -> dict:
    """Returns a row with the parameters and MACs of one size of SeaFormer++, and their excess over the ICLR model."""
    counts = {}
    for name in (f"seaformer_{size}", f"seaformer_plus_{size}"):
        # Shapes are enough to count, so no weights are made.
        model = nnx.eval_shape(functools.partial(create_model, name, task, num_classes=sides.CLASSES[task]))
        parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
        counts[name] = parameters, count_macs(model, *INPUTS[task]).total
    (parameters, macs), (more_parameters, more_macs) = counts.values()
    return {
        "task": task,
        "model": f"seaformer_plus_{size}",
        "parameters": more_parameters,
        "parameters over ICLR": percent(more_parameters / parameters),
        "GMACs": round(more_macs / 1e9, 3),
        "MACs over ICLR": percent(more_macs / macs),
    }


def latency(task: str, kind: str, runs: int) -> dict:
    """Returns a row with the latency of both models, exported with seeded weights to the format `kind`."""
    size = INPUTS[task]
    with tempfile.TemporaryDirectory() as folder:
        bundles = [
            seeded_bundles.write_bundle(
                seeded_networks.seeded(task, name, size), pathlib.Path(folder) / name, task, name, kind, size
            )
            for name in PAIR
        ]
        report = measure_bundles(registry.find("host", 1), bundles, runs)
        plain_count, plus_count = map(operators, bundles)
    plain, plus = (statistics.median(record["samples"]["network"]) for record in report["bundles"])
    return {
        "task": task,
        "format": kind,
        "ICLR ms": round(plain, 2),
        "++ ms": round(plus, 2),
        "over ICLR": percent(plus / plain),
        "ICLR operators": plain_count,
        "++ operators": plus_count,
    }


def operators(bundle: Bundle) -> int | str:
    """Returns the number of operators in a model file; "" for ExecuTorch, whose delegate hides them."""
    if bundle.format == "onnx":
        import onnx

        return len(onnx.load(bundle.model).graph.node)
    if bundle.format == "litert":
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        # Before XNNPACK takes its parts of the graph; they would come on top of what they replace.
        plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        return len(Interpreter(str(bundle.model), experimental_op_resolver_type=plain)._get_ops_details())
    if bundle.format == "ncnn":
        _, counts, *_ = bundle.model.read_text().splitlines()
        return int(counts.split()[0])  # The number of layers; after it comes that of their outputs.
    return ""


def step(task: str, rounds: int) -> dict:
    """Returns a row with the time of a training step of both models."""
    (side, _), batch = INPUTS[task], BATCH[task]
    both = {name: functools.partial(sides.our_step, name, task, batch, side) for name in PAIR}
    plain, plus = (result.seconds for result in measure.in_turn(both, rounds).values())
    return {
        "task": task,
        "images": batch,
        "ICLR ms": round(1e3 * plain, 1),
        "++ ms": round(1e3 * plus, 1),
        "over ICLR": percent(plus / plain),
    }


def percent(ratio: float) -> str:
    """Returns the excess of a ratio over 1, e.g. "+2.9 %" for 1.029."""
    return f"{100 * (ratio - 1):+.1f} %"


if __name__ == "__main__":
    main()
