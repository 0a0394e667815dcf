"""Counts the aarch64 instructions of one attention module at growing feature maps, in the runtimes for phones.

    python -m experiments.attention_arm [--formats litert,onnx,executorch,ncnn] [--largest 128]

The modules are those of `experiments.attention_latency`, 64 channels and 2 heads on square maps, here of 16 to 128
positions a side. `convert.export` writes them, and the emulated ARM core of `make arm-check` runs them, so that the
counts do not depend on the load of the machine. Run it with build/arm/venv/bin/python, after `make arm-check`.

Runners take images of three channels, so a projection from 3 to 64 channels comes before the module. It is also
counted alone, and its instructions are subtracted. Every output must be PyTorch's.

Writes experiments/results/attention_arm.json, .md and the plot (.png). Counts that are in the JSON already are kept,
so the script resumes; `--again` counts everything.
"""

import argparse
import functools
import json
import math
import pathlib
import statistics
import tempfile
from typing import Any

import torch
from torch import Tensor, nn

from convert.export import seeded_bundles
from convert.export.quiet import quiet
from convert.latency import turns
from convert.latency.devices.qemu import Qemu
from experiments import attention_graphs as graphs
from experiments import attention_latency as latency
from experiments import measure
from experiments.attention_runtimes import reason

NAME = "attention_arm"
SIDES = (16, 32, 64, 128)
FORMATS = {"litert": "LiteRT", "onnx": "ONNX Runtime", "executorch": "ExecuTorch", "ncnn": "ncnn"}
# Millions of instructions. A module that is expected to have more, four times those at half the side, is left out,
# because it would keep the emulator too long.
MOST = 1000.0
CHANNELS_FIRST = ("ncnn",)  # Its maps always are; here it takes modules with their transpositions.
COUNT, REFUSED = "M instructions", "refused"  # Entries of a kind at one size.


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--largest", type=int, default=SIDES[-1])
    parser.add_argument("--again", action="store_true")
    options = parser.parse_args()
    path = measure.RESULTS / f"{NAME}.json"
    results = json.loads(path.read_text())["results"] if path.exists() and not options.again else {}
    facts = {"device": Qemu(threads=1).facts(), "channels": graphs.CHANNELS, "heads": graphs.HEADS}
    for format_ in options.formats.split(","):
        for side in [side for side in SIDES if side <= options.largest]:
            for kind in missing(results.setdefault(format_, {}), side):
                found = results[format_].setdefault(str(side), {})
                found[kind] = counted(kind, format_, side)
                print(f"{kind} in {format_}, {side}x{side}: {found[kind]}", flush=True)
                measure.write(NAME, {**facts, "results": results})
    shown = {title: results[format_] for format_, title in FORMATS.items() if format_ in results}
    latency.draw(NAME, shown, COUNT, "millions of aarch64 instructions")
    text = markdown(results, facts["device"])
    (measure.RESULTS / f"{NAME}.md").write_text(text)
    print(text)


def missing(results: dict[str, dict[str, Any]], side: int) -> list[str]:
    """Returns the kinds that are to be counted in a format at one size, after the smaller sizes."""
    halved, known = results.get(str(side // 2), {}), results.get(str(side), {})
    # What was refused or left out at half the side is left out here, too.
    fitting = {
        kind
        for kind in latency.LARGEST
        if side == SIDES[0] or 4 * halved.get(kind, {}).get(COUNT, math.inf) <= MOST
    }
    return [
        kind
        for kind, largest in latency.LARGEST.items()
        if side <= largest and kind not in known and kind in fitting
    ]


def counted(kind: str, format_: str, side: int) -> dict[str, Any]:
    """Returns the millions of instructions of a module, or why the runtime does not take it."""
    module, _ = graphs.network(kind, side)
    last = isinstance(module, graphs.InOwnLayout)
    if last and format_ in CHANNELS_FIRST:
        module, last = module.module, False
    # It comes first: if this fails, something is not installed, and no kind is to blame.
    alone = projection(format_, side, last)
    try:
        return {COUNT: instructions(OfImage(module, last), format_, side) - alone}
    except Exception as error:  # Converters can raise almost anything.
        return {REFUSED: reason(error)}


@functools.cache
def projection(format_: str, side: int, last: bool) -> float:
    """Returns the millions of instructions of the projection alone; `last` as in `OfImage`."""
    return instructions(OfImage(nn.Identity(), last), format_, side)


class OfImage(nn.Module):
    """A module on feature maps behind a projection from an image [1, 3, H, W].

    Args:
        module: Maps [1, C, H, W], or [1, H, W, C] if `last`, to the same shape.
        last: The module has the channels last. Then the image is transposed, which costs less than to transpose maps.
    """

    def __init__(self, module: nn.Module, last: bool):
        super().__init__()
        torch.manual_seed(1)
        self.projection = nn.Linear(3, graphs.CHANNELS) if last else nn.Conv2d(3, graphs.CHANNELS, 1)
        self.module, self.last = module, last

    def forward(self, image: Tensor) -> Tensor:
        return self.module(self.projection(image.permute(0, 2, 3, 1) if self.last else image))


def instructions(network: nn.Module, format_: str, side: int) -> float:
    """Returns the millions of instructions of a run of `network` in the runtime of a format, without the loading.

    Raises:
        ValueError: The output is not PyTorch's.
    """
    network = network.eval().requires_grad_(False)
    with tempfile.TemporaryDirectory() as folder, quiet():
        # As a classifier it has no layout of the output and no class map.
        bundle = seeded_bundles.write_bundle(
            network, pathlib.Path(folder) / "bundle", "classification", NAME, format_, (side, side)
        )
        (record,) = turns.measure(Qemu(threads=1), [bundle], runs=1)["bundles"]
    if not record["parity"]["ok"]:
        raise ValueError(f"differs by {record['parity']['difference']:.1e} of the largest value")
    return statistics.median(record["samples"]["network"])


def against_x86(results: dict[str, Any], side: int) -> str:
    """Returns the table of ratios to SEA at one size: instructions here, time on x86, and the paper's time."""
    path = measure.RESULTS / f"{latency.NAME}.json"
    times = json.loads(path.read_text())["results"] if path.exists() else {}
    rows = []
    for kind in latency.LARGEST:
        row: dict[str, Any] = {"kind": f"`{kind}`"}
        for format_, title in FORMATS.items():
            if format_ in results:
                row[f"{title}, instructions"] = latency.ratio(
                    results[format_].get(str(side), {}), kind, COUNT
                )
            if format_ in times:
                row[f"{title}, x86 time"] = latency.ratio(times[format_].get(str(side), {}), kind, "ms")
        if side == 32:
            row["paper, ARM time"] = (
                latency.PAPER[kind][0] / latency.PAPER["sea"][0] if kind in latency.PAPER else ""
            )
        rows.append(row)
    return measure.table(rows)


def markdown(results: dict[str, Any], device: dict[str, Any]) -> str:
    """Returns the text of the result file."""
    refusals = [
        f"- `{kind}` in {FORMATS[format_]}: {figures[REFUSED]}"
        for format_, by_side in results.items()
        for found in by_side.values()
        for kind, figures in found.items()
        if REFUSED in figures
    ]
    parts = [
        "# Instructions of one attention module on ARM",
        f"`python -m experiments.{NAME}`: {graphs.CHANNELS} channels, {graphs.HEADS} heads, float32, one thread; "
        f"{device['cpu']}, {device['emulator']}. Counts are the same on every machine. They leave out caches, memory "
        "and instructions per cycle, so they compare modules and do not predict times. SEA is in its inference form; "
        "of the other kinds only BatchNorms are folded.",
        f"![instructions over the side of the map]({NAME}.png)",
    ]
    for side in (32, 128):
        parts += [
            f"## Ratios to SEA at {side}x{side}, beside those of time on x86",
            against_x86(results, side),
        ]
    parts += [
        "## Millions of instructions",
        "An empty cell was left out: it is beyond the largest map of its kind, as on x86, the runtime does not take "
        f"the kind, or more than {MOST:g} million were expected.",
    ]
    for format_, by_side in results.items():
        parts += [f"### {FORMATS[format_]}", latency.table(by_side, COUNT)]
    if refusals:
        parts += ["## What a runtime does not take", "\n".join(refusals)]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
