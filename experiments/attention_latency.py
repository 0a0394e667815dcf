"""Measures one attention module at growing feature maps, the paper's Figure 1 (left), in runtimes and in training.

    python -m experiments.attention_latency [--parts onnx,litert,training] [--largest 256]

Modules have 64 channels and 2 heads and see square maps of 16 to 256 positions a side; vanilla attention and the two
slowest kinds end earlier. Latency is the CPU time of one thread of ONNX Runtime and of LiteRT; training is output and
gradients of one map in JAX, in CPU seconds of the process, with the temporary memory of the compiled program. All
kinds of a size take turns, and every exported module must compute what PyTorch computes. LiteRT needs
`pip install 'seaformer-jax[litert]'`.

Writes experiments/results/attention_latency.json, .md and the plot (.png). Sizes and parts that are in the JSON
already are kept, so the script resumes; `--again` measures everything.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure

from experiments import attention_graphs as graphs
from experiments import measure

NAME = "attention_latency"
SIDES = (16, 32, 64, 128, 256)
# Kind -> the largest map. Vanilla needs 2 GB at 128; the last two are for reference only.
LARGEST = {
    "sea": 256,
    "sea_plus": 256,
    "mixformer": 256,
    "window": 256,
    "axial_sum": 256,
    "acmix_swin": 256,
    "vanilla": 64,
    "axial_deeplab": 32,
    "acmix_conv": 16,
}
# A kind has the same colour in all panels, whichever others are there.
COLOURS = {kind: f"C{number}" for number, kind in enumerate(LARGEST)}
ROUNDS = {16: 31, 32: 31, 64: 15, 128: 7, 256: 5}
PARTS = {"onnx": "ONNX Runtime", "litert": "LiteRT", "training": "JAX, training"}
TRAINING_LARGEST = 128
# The paper's Figure 1 (left), read off the plot: ms on a Snapdragon 865, at 32 and at 512 a side.
PAPER = {
    "sea": (3.2, 970.0),
    "mixformer": (5.9, 1700.0),
    "window": (5.7, 5300.0),
    "axial_sum": (8.3, 4800.0),
    "acmix_swin": (17.9, 6100.0),
    "vanilla": (13.6, None),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--largest", type=int, default=SIDES[-1])
    parser.add_argument("--again", action="store_true")
    options = parser.parse_args()
    path = measure.RESULTS / f"{NAME}.json"
    results = json.loads(path.read_text())["results"] if path.exists() and not options.again else {}
    for part in options.parts.split(","):
        for side in SIDES:
            if side <= options.largest and str(side) not in results.setdefault(part, {}):
                print(f"{part}, {side}x{side}", flush=True)
                results[part][str(side)] = measured(part, side)
                measure.write(NAME, {"channels": graphs.CHANNELS, "heads": graphs.HEADS, "results": results})
    shown = {PARTS[part]: results[part] for part in ("onnx", "litert") if results.get(part)}
    draw(NAME, shown, "ms", "milliseconds, one thread")
    text = markdown(results)
    (measure.RESULTS / f"{NAME}.md").write_text(text)
    print(text)


def measured(part: str, side: int) -> dict[str, dict[str, float]]:
    """Returns kind -> its figures at one size: ms, and for training the MB of temporary memory."""
    kinds = [kind for kind, largest in LARGEST.items() if side <= largest]
    if part != "training":
        build: Callable = graphs.in_onnx if part == "onnx" else graphs.in_litert
        runs = {kind: build(kind, side) for kind in kinds}
        seconds = measure.interleaved(runs, ROUNDS[side], clock=time.thread_time)
        return {kind: {"ms": 1e3 * seconds[kind]} for kind in kinds}
    if side > TRAINING_LARGEST:
        return {}
    programs = {kind: graphs.training(kind, side) for kind in kinds}
    runs = {kind: run for kind, (run, _) in programs.items()}
    seconds = measure.interleaved(runs, ROUNDS[side], clock=time.process_time)
    return {kind: {"ms": 1e3 * seconds[kind], "MB": programs[kind][1] / 1e6} for kind in kinds}


def table(results: dict[str, Any], quantity: str) -> str:
    """Returns a table of one part: a row per kind, with its figure and its ratio to SEA's at every size."""
    rows = []
    for kind in LARGEST:
        row: dict[str, Any] = {"kind": f"`{kind}`"}
        for side, found in results.items():
            if not found:
                continue
            row[f"{side} {quantity}"] = found.get(kind, {}).get(quantity, "")
            row[f"{side} / SEA"] = ratio(found, kind, quantity)
        rows.append(row)
    return measure.table(rows)


def ratio(found: dict[str, dict[str, Any]], kind: str, quantity: str) -> float | str:
    """Returns the figure of `kind` over that of SEA at one size; "" if one of them is missing."""
    values = [found.get(name, {}).get(quantity) for name in (kind, "sea")]
    return "" if None in values else values[0] / values[1]


def against_paper(results: dict[str, Any]) -> str:
    """Returns the table of ratios to SEA, the paper's beside ours."""
    rows = []
    for kind, milliseconds in PAPER.items():
        row: dict[str, Any] = {"kind": f"`{kind}`"}
        for column, ours, position in (("32", "32", 0), ("512, ours 256", "256", 1)):
            theirs = milliseconds[position]
            row[f"paper at {column.split(',')[0]}"] = (
                "" if theirs is None else theirs / PAPER["sea"][position]
            )
            for part in ("onnx", "litert"):
                row[f"{PARTS[part]} at {ours}"] = ratio(results.get(part, {}).get(ours, {}), kind, "ms")
        rows.append(row)
    return measure.table(rows)


def markdown(results: dict[str, Any]) -> str:
    """Returns the text of the result file."""
    machine = measure.machine()
    parts = [
        "# One attention module at growing feature maps (Figure 1, left)",
        f"`python -m experiments.{NAME}` on {machine['cpu']}, {machine['cores']} cores: {graphs.CHANNELS} channels, "
        f"{graphs.HEADS} heads, medians; all kinds of a size take turns. The time is that of the processor, so that "
        "other work on the machine counts little; compare ratios. SEA is in its inference form. `vanilla` ends at "
        f"{LARGEST['vanilla']}, because its scores need 2 GB at 128. `axial_deeplab` and `acmix_conv` are slow and "
        "measured on small maps only. Training is measured up to 128.",
        f"![latency over the side of the map]({NAME}.png)",
        "## Ratios to SEA, the paper's beside ours",
        "The paper's are read off its plot (a Snapdragon 865, one thread, framework not named; up to 512 a side). "
        '"local" of the paper is `window` here, its ACmix `acmix_swin`, its axial `axial_sum`; the paper does not '
        "say which forms it measured.",
        against_paper(results),
    ]
    for part, found in results.items():
        where = "one thread" if part != "training" else "output and gradients of one map, all threads"
        parts += [f"## {PARTS[part]}: milliseconds, {where}", table(found, "ms")]
        if part == "training":
            parts += ["## JAX, training: MB of temporary memory", table(found, "MB")]
    return "\n\n".join(parts) + "\n"


def draw(name: str, results: dict[str, Any], quantity: str, label: str) -> None:
    """Draws a quantity over the side of the map, both axes logarithmic, into results/<name>.png.

    Args:
        name: Name of the result.
        results: Title of a panel -> side -> kind -> figures.
        quantity: Name of the figure that is drawn.
        label: Label of its axis.
    """
    rows, columns = -(-len(results) // 2), min(len(results), 2)
    figure = Figure(figsize=(5.5 * columns, 4.5 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes, (title, by_side) in zip(panels, results.items(), strict=False):
        for kind in LARGEST:
            points = [
                (int(s), row[kind][quantity]) for s, row in by_side.items() if quantity in row.get(kind, {})
            ]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", label=kind, color=COLOURS[kind])
        axes.set(xscale="log", yscale="log", xlabel="side of the feature map", ylabel=label, title=title)
        sides = [int(side) for side in by_side]
        axes.set_xticks(sides, sides)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(measure.RESULTS / f"{name}.png", dpi=100)


if __name__ == "__main__":
    main()
