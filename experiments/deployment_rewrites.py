"""Measures the gain of each rewrite of the inference form in every runtime: SeaFormer-Base, 512x512, logits at 1/8.

    python -m experiments.deployment_rewrites [--runs 50]

The first form is the model as it is trained; each further form has one more of `rewrites.REWRITES` applied. The forms
take turns within a runtime. Prints the table and writes experiments/results/deployment_rewrites_cpu.json and .md.
Needs the environment of `experiments.deployment`.
"""

import argparse
import contextlib
import pathlib
import tempfile
from typing import Any

from torch import nn

from convert.bundle import NATIVE, Bundle
from convert.export import seeded_bundles
from convert.graph import rewrites, seeded_networks
from convert.latency.turns import measure as measure_bundles
from convert.runtimes import registry
from experiments import deployment_report as reporting
from experiments import deployment_sides as sides
from experiments import measure
from seaformer_jax.errors import UserError

NAME, SIZE = "seaformer_base", (512, 512)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=50)
    options = parser.parse_args()
    # 1. The forms of the model.
    trained = seeded_networks.trained("segmentation", NAME)
    forms = {"as trained": trained}
    for number, rewrite in enumerate(rewrites.REWRITES):
        forms[rewrite.__name__] = rewrites.rewritten(trained, SIZE, rewrites.REWRITES[: number + 1])
    # 2. Every runtime measures the forms that it can run.
    reports, outside = {}, {}
    for kind in (sides.EAGER, *NATIVE):
        with tempfile.TemporaryDirectory() as folder:
            bundles = [bundle for bundle in write(pathlib.Path(folder), forms, kind) if runs(bundle, kind)]
            modules = forms if kind == sides.EAGER else {}
            reports[kind] = measure_bundles(sides.HostWithEager(modules), bundles, options.runs)
            if kind == "executorch":
                outside = {bundle.folder.name: registry.find(kind).outside(bundle) for bundle in bundles}
    figures = {
        "outside": outside,
        "reports": [reporting.rounded(report) for report in reports.values()],
    }
    reporting.write("deployment_rewrites_cpu", markdown(reports, outside), figures)


def write(folder: pathlib.Path, forms: dict[str, nn.Module], kind: str) -> list[Bundle]:
    """Writes a bundle of every form for a runtime, or for eager mode."""
    # A whole bundle of the last form provides the reference output that all forms are compared with.
    *_, last = forms.values()
    exported = "onnx" if kind == sides.EAGER else kind
    whole = seeded_bundles.write_bundle(last, folder / "whole", "segmentation", NAME, exported, SIZE)
    bundles = [sides.sibling(whole, name, format=kind) for name in forms]
    for bundle, model in zip(bundles, forms.values(), strict=True):
        if kind == sides.EAGER:
            continue
        # ExecuTorch's exporter complains if the model runs in several parts, but that is what is measured here.
        with contextlib.suppress(UserError):
            sides.export(bundle, model)
    return bundles


def runs(bundle: Bundle, kind: str) -> bool:
    """Returns whether the runtime can run a form; only the first and the last form were made for all runtimes."""
    if kind == sides.EAGER:
        return True
    try:
        registry.find(kind).load(bundle)
    except UserError:
        print(f"{kind} cannot run the form {bundle.folder.name}", flush=True)
        return False
    return True


def markdown(reports: dict[str, dict[str, Any]], outside: dict[str, dict[str, int]]) -> str:
    """Returns the result file: a row for each form, with its time and its gain in every runtime."""
    medians = {kind: reporting.medians(report) for kind, report in reports.items()}
    rows = []
    for form in outside:
        row: dict[str, Any] = {"form": form}
        for kind, times in medians.items():
            own = times.get(form, {}).get("network")
            row[f"{kind} ms"] = "" if own is None else own
            row[f"{kind} %"] = "" if own is None else 100 * (own / times["as trained"]["network"] - 1)
        rows.append(row | {"operators outside ExecuTorch's delegate": sum(outside[form].values())})
    first = next(iter(reports.values()))
    return (
        f"# The rewrites of {NAME}, segmentation, {SIZE[0]}x{SIZE[1]}, to `logits8`\n\n"
        f"`python -m experiments.deployment_rewrites` on {first['facts']['cpu']}, one thread pinned to a core, "
        f"{first['date']}: median ms and the difference from the first row. Each row has one more rewrite of "
        "`convert/graph/rewrites.py` than the row above; a cell is empty if the runtime cannot run the form. Compare "
        "only within a column, because forms take turns and runtimes do not. Exporters fold BatchNorm and constants "
        f"by themselves.\n\n{measure.table(rows)}\n"
    )


if __name__ == "__main__":
    main()
