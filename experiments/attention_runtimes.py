"""Tries which runtime takes which attention module: exports all kinds to all runtimes and compares the outputs.

    python -m experiments.attention_runtimes [--kinds sea,...] [--formats onnx,litert,...]

A module has 64 channels and 2 heads and sees a feature map of 20 x 26, which windows of 7 do not divide, behind a 1x1
convolution from the three channels of an image. Prints the table and writes
experiments/results/attention_runtimes.json and .md; what is not asked for stays as it is there.
"""

import argparse
import contextlib
import io
import json
import pathlib
import tempfile

import numpy as np
import torch
from torch import nn

from convert.bundle import FORMATS
from convert.export import seeded_bundles
from convert.graph import seeded_networks
from convert.runtimes import registry
from experiments import measure
from seaformer_jax import versions
from seaformer_jax.models.attention import KINDS

SIZE, CHANNELS = (20, 26), 64
TOLERANCE = 1e-4  # Of the largest value of the output.
NAME = "attention_runtimes"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--kinds", default=",".join(KINDS))
    options = parser.parse_args()
    formats, kinds = options.formats.split(","), options.kinds.split(",")
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"no kind is named {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    for format_ in formats:
        registry.find(format_)  # A package that is missing is an error, and no answer.
    cells = recorded()
    for kind in kinds:
        for format_ in formats:
            cells[kind][format_] = attempt(kind, format_)
            print(f"{kind} in {format_}: {cells[kind][format_]}", flush=True)
    packages = {package: versions.installed(package) for f in FORMATS for package in registry.packages(f)}
    measure.write(NAME, {"size": SIZE, "cells": cells, "packages": packages})
    (measure.RESULTS / f"{NAME}.md").write_text(markdown(cells))
    print(markdown(cells))


def recorded() -> dict[str, dict[str, str]]:
    """Returns kind -> format -> outcome of the last run."""
    path = measure.RESULTS / f"{NAME}.json"
    old = json.loads(path.read_text())["cells"] if path.exists() else {}
    return {kind: old.get(kind, {}) for kind in KINDS}


def attempt(kind: str, format_: str) -> str:
    """Returns "yes", or why the runtime does not take this kind."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(3, CHANNELS, 1), seeded_networks.attention(kind, SIZE)).eval()
    try:
        with tempfile.TemporaryDirectory() as folder, silence():
            bundle = seeded_bundles.write_bundle(
                network.requires_grad_(False), pathlib.Path(folder) / "b", "segmentation", kind, format_, SIZE
            )
            image, expected = bundle.reference()
            found = registry.find(format_).load(bundle)(image)
    except Exception as error:  # Converters can raise almost anything.
        return f"no: {reason(error)}"
    error = np.abs(found - expected).max() / np.abs(expected).max()
    return "yes" if error <= TOLERANCE else f"no: differs by {error:.1e} of the largest value"


def reason(error: Exception) -> str:
    """Returns what an error says, in one short line."""
    line = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {line[:150]}"


@contextlib.contextmanager
def silence():
    """Suppresses what the converters print."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def markdown(cells: dict[str, dict[str, str]]) -> str:
    formats = [format_ for format_ in FORMATS if any(format_ in row for row in cells.values())]
    rows = [
        {"kind": f"`{kind}`", **{f: row.get(f, "not tried").split(":")[0] for f in formats}}
        for kind, row in cells.items()
    ]
    reasons = [
        f"- `{kind}` in {format_}: {outcome.removeprefix('no: ')}"
        for kind, row in cells.items()
        for format_, outcome in row.items()
        if outcome != "yes"
    ]
    return (
        f"# Which runtime takes which attention module\n\n`python -m experiments.{NAME}`: {CHANNELS} channels "
        f'on a feature map of {SIZE[0]}x{SIZE[1]}, in float32. "yes" means that the module is exported, loads and '
        f"computes what PyTorch computes, up to {TOLERANCE:g} of the largest value.\n\n{measure.table(rows)}\n"
        + ("\nWhat the others say:\n\n" + "\n".join(reasons) + "\n" if reasons else "")
    )


if __name__ == "__main__":
    main()
