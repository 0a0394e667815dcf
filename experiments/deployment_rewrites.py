"""What each rewrite of the inference form is worth in every runtime: SeaFormer-Base, 512x512, to logits at 1/8.

    python -m experiments.deployment_rewrites [--runs 50]

The model as it is trained, and with one more of `deploy.REWRITES` at a time. The forms take turns within a runtime.
Prints the table and writes experiments/results/deployment_rewrites_cpu.json and .md. Needs the environment of
`experiments.deployment`.
"""

import argparse
import contextlib
import pathlib
import tempfile
from typing import Any

from torch import nn

from convert.bundle import FORMATS, Bundle
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
    trained = seeded_networks.trained("segmentation", NAME)
    forms = {"as trained": trained}
    for number, rewrite in enumerate(rewrites.REWRITES):
        forms[rewrite.__name__] = rewrites.rewritten(trained, SIZE, rewrites.REWRITES[: number + 1])
    reports, outside = {}, {}
    for kind in (sides.EAGER, *FORMATS):
        with tempfile.TemporaryDirectory() as folder:
            bundles = [made for made in write(pathlib.Path(folder), forms, kind) if runs(made, kind)]
            modules = forms if kind == sides.EAGER else {}
            reports[kind] = measure_bundles(sides.HostWithEager(modules), bundles, options.runs)
            if kind == "executorch":
                outside = {made.folder.name: registry.find(kind).outside(made) for made in bundles}
    figures = {
        "outside": outside,
        "reports": [reporting.rounded(report) for report in reports.values()],
    }
    reporting.write("deployment_rewrites_cpu", markdown(reports, outside), figures)


def write(folder: pathlib.Path, forms: dict[str, nn.Module], kind: str) -> list[Bundle]:
    """Writes every form for a runtime, or for eager mode."""
    *_, last = forms.values()
    exported = "onnx" if kind == sides.EAGER else kind
    whole = seeded_bundles.write_bundle(last, folder / "whole", "segmentation", NAME, exported, SIZE)
    bundles = [sides.sibling(whole, name, format=kind) for name in forms]
    for made, model in zip(bundles, forms.values(), strict=True):
        if kind == sides.EAGER:
            continue
        # ExecuTorch's complaint that it runs the model in several parts, which is what is measured here.
        with contextlib.suppress(UserError):
            sides.export(made, model)
    return bundles


def runs(made: Bundle, kind: str) -> bool:
    """Whether the runtime takes a form: those between the trained one and the last were not made for all of them."""
    if kind == sides.EAGER:
        return True
    try:
        registry.find(kind).load(made)
    except UserError:
        print(f"{kind} does not take {made.folder.name}", flush=True)
        return False
    return True


def markdown(reports: dict[str, dict[str, Any]], outside: dict[str, dict[str, int]]) -> str:
    medians = {kind: reporting.medians(report) for kind, report in reports.items()}
    rows = []
    for form in outside:
        row: dict[str, Any] = {"form": form}
        for kind, found in medians.items():
            taken = found.get(form, {}).get("network")
            row[f"{kind} ms"] = "" if taken is None else taken
            row[f"{kind} %"] = "" if taken is None else 100 * (taken / found["as trained"]["network"] - 1)
        rows.append(row | {"operators outside ExecuTorch's delegate": sum(outside[form].values())})
    first = next(iter(reports.values()))
    return (
        f"# The rewrites of {NAME}, segmentation, {SIZE[0]}x{SIZE[1]}, to `logits8`\n\n"
        f"`python -m experiments.deployment_rewrites` on {first['facts']['cpu']}, one thread pinned to a core, "
        f"{first['date']}: median ms with one more rewrite of `convert/graph/rewrites.py` from row to row, and the "
        "difference from the first row; empty where a runtime does not take a form. Forms take turns, runtimes do "
        "not: compare within a column. Exporters fold "
        f"BatchNorm and constants by themselves.\n\n{measure.table(rows)}\n"
    )


if __name__ == "__main__":
    main()
