"""Measures what the fastest runtimes leave in the convolutions of SeaFormer-Large (224x224) and -Base (512x512).

    python -m experiments.deployment_body [--parts export,core,layers,sides,forms,options,loading,arm]

- export writes the bundles to build/body; a bundle that is there already is used again;
- core: the rate at which the core multiplies matrices and reads and writes memory;
- layers: each kind of convolution in every runtime that has a profiler, and the fastest runtime of each layer;
- sides: every runtime and PyTorch's eager mode, in turns;
- forms: the network in strips, so that the hidden maps of an inverted residual stay in the cache, in LiteRT;
- options: the options of the runtimes;
- loading: a LiteRT bundle with and without a file that caches its packed weights;
- arm: half precision against float32 in ARM instructions; needs `make arm-setup`.

A part that is not asked for keeps its figures. Everything but `arm` depends on the load of the machine. Where two
processors share a core, as many virtual machines have it, the other one must be idle, too. Needs the environment of
`experiments.deployment`. Writes experiments/results/deployment_body.json and .md.
"""

import argparse
import functools
import json
import pathlib
from typing import Any

import numpy as np
import torch

from convert.bundle import NATIVE, Bundle
from convert.export import seeded_bundles
from convert.graph import rewrites, seeded_networks
from convert.latency import profilers, turns
from convert.latency.devices.qemu import Qemu
from convert.runtimes import registry
from experiments import body_forms, body_layers, body_report, measure

CASES = {
    "large classifier": ("classification", "seaformer_large", (224, 224)),
    "base `logits8`": ("segmentation", "seaformer_base", (512, 512)),
}
HALF = ("litert", "ncnn")  # Formats with a runner and arithmetic in half precision on ARM.
FOLDER = pathlib.Path(__file__).parents[1] / "build" / "body"
ROUNDS, RUNS = 15, 20
_SUMS = 20
RESULT = "deployment_body"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS))
    asked = parser.parse_args().parts
    torch.set_num_threads(1)
    path = measure.RESULTS / f"{RESULT}.json"
    figures: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for part in asked.split(","):
        print(part, flush=True)
        found = PARTS[part]()
        if found is not None:
            figures[part] = found
            measure.write(RESULT, {name: figures[name] for name in PARTS if name in figures})
    path.with_suffix(".md").write_text(body_report.markdown(json.loads(path.read_text())))


@functools.cache
def trained(case: str) -> torch.nn.Module:
    """Returns the model of a case in its training form."""
    task, name, _ = CASES[case]
    return seeded_networks.trained(task, name)


def bundle(case: str, kind: str, form: str = "", precision: str = "fp32") -> Bundle:
    """Returns a bundle in build/body, which is written if it is not there; `form` is one of `body_forms.STRIPS`."""
    task, name, size = CASES[case]
    folder = FOLDER / "_".join([name, kind, form.replace(" ", "_"), precision])
    if not folder.exists():
        model = rewrites.deploy(trained(case), size)
        if form:
            model = body_forms.in_strips(model, size, body_forms.STRIPS[form])
        written = seeded_bundles.write_bundle(model, folder, task, name, kind, size, precision)
        registry.find(kind).annotate(written)  # Metadata may decide on the arithmetic.
        written.write_card()
    return Bundle.open(folder)


def export() -> None:
    """Writes all bundles."""
    for case in CASES:
        for kind in NATIVE:
            bundle(case, kind)
        for form in body_forms.STRIPS:
            bundle(case, "litert", form)
        for kind in HALF:
            bundle(case, kind, precision="fp16")


def core() -> dict[str, float]:
    """Returns the billions of operations a second of a large matrix product, and the GB/s of a sum in the cache."""
    square, flat = torch.randn(1024, 1024), torch.randn(2**20)
    out = torch.empty_like(flat)

    def sums() -> None:
        for _ in range(_SUMS):  # The first one finds the cache cold.
            torch.add(flat, 1, out=out)

    seconds = measure.interleaved({"product": lambda: square @ square, "sums": sums}, ROUNDS)
    return {
        "GFLOP/s": 2 * 1024**3 / seconds["product"] / 1e9,
        "GB/s": _SUMS * 2 * 4 * flat.numel() / seconds["sums"] / 1e9,
    }


def layers() -> dict[str, Any]:
    """Returns for every case the rows of `body_layers.rows`, the highest rate in them, and the time at that rate."""
    bandwidth, found = core()["GB/s"], {}
    for case, (_, _, size) in CASES.items():
        network = body_layers.layers(rewrites.deploy(trained(case), size), torch.zeros(1, 3, *size))
        profiles = {
            kind: profilers.operators(bundle(case, kind), RUNS, 1) for kind in body_layers.CONVOLUTIONS
        }
        rows = body_layers.rows(network, profiles)
        rate = max(value for row in rows for name, value in row.items() if "GFLOP/s" in name and value)
        found[case] = {
            "rows": rows,
            "highest GFLOP/s": rate,
            "bound ms": body_layers.bound(network, rate, bandwidth),
            "output channels that are no multiple of 16": sum(layer.weights[0] % 16 > 0 for layer in network),
        }
    return found


def sides() -> dict[str, dict[str, float]]:
    """Returns case -> side -> median milliseconds, eager mode first."""
    found = {}
    for case in CASES:
        image = bundle(case, "onnx").reference()[0]
        planes = torch.from_numpy(np.ascontiguousarray(image.transpose(0, 3, 1, 2)))
        runs = {"eager": torch.no_grad()(functools.partial(trained(case), planes))}
        for kind in NATIVE:
            runs[kind] = functools.partial(registry.load(bundle(case, kind)), image)
        found[case] = _milliseconds(runs)
    return found


def forms() -> dict[str, dict[str, float]]:
    """Returns case -> form -> median milliseconds in LiteRT, the default form first."""
    found = {}
    for case in CASES:
        bundles = {form or "default": bundle(case, "litert", form) for form in ("", *body_forms.STRIPS)}
        found[case] = _milliseconds(
            {
                form: functools.partial(registry.load(each), each.reference()[0])
                for form, each in bundles.items()
            }
        )
    return found


def options() -> dict[str, dict[str, float]]:
    """Returns "case, runtime" -> option -> median milliseconds, the defaults first."""
    return {
        f"{case}, {kind}": _milliseconds(body_forms.options(bundle(case, kind)))
        for case in CASES
        for kind in body_layers.CONVOLUTIONS
    }


def loading() -> dict[str, dict[str, float]]:
    """Returns case -> with or without a cache -> median milliseconds from the file to the first output."""
    return {case: _milliseconds(body_forms.loading(bundle(case, "litert"))) for case in CASES}


def arm() -> dict[str, Any]:
    """Returns case -> the report of `turns.measure` on the emulated ARM core, without samples."""
    found = {}
    for case in CASES:
        bundles = [bundle(case, kind, precision=precision) for kind in HALF for precision in ("fp32", "fp16")]
        report = turns.measure(Qemu(threads=1), bundles, runs=1)
        found[case] = [
            {
                "format": record["format"],
                "precision": record["precision"],
                "M instructions": float(np.median(record["samples"]["network"])),
                **record["parity"],
            }
            for record in report["bundles"]
        ]
    return found


def _milliseconds(runs: dict[str, Any]) -> dict[str, float]:
    return {name: 1000 * seconds for name, seconds in measure.interleaved(runs, ROUNDS).items()}


PARTS = {part.__name__: part for part in (export, core, layers, sides, forms, options, loading, arm)}

if __name__ == "__main__":
    main()
