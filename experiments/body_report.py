"""The text of experiments/results/deployment_body.md."""

from collections.abc import Mapping
from typing import Any

from experiments import measure

AIM = 4.0  # Target: times faster than PyTorch's eager mode.

Figures = Mapping[str, Any]


def markdown(figures: Figures) -> str:
    """Returns the result file; a part that was not measured has no section."""
    texts = [
        "# What the fastest runtimes leave",
        f"`python -m experiments.deployment_body`, {figures['machine']['cpu']}, one thread on one core, the other "
        "core idle. fp32, seeded weights, from a normalised image to a NumPy array. The sides of a table take turns; "
        "times are medians.",
    ]
    sections = {
        "core": _core,
        "sides": _sides,
        "layers": _layers,
        "forms": _forms,
        "options": _options,
        "loading": _loading,
        "arm": _arm,
    }
    for part, section in sections.items():
        if part in figures:
            texts += section(figures)
    return "\n\n".join(texts) + "\n"


def _core(figures: Figures) -> list[str]:
    rates = figures["core"]
    return [
        f"PyTorch multiplies matrices of 1024x1024 at {rates['GFLOP/s']:.0f} GFLOP/s on this core, and adds a number "
        f"to 4 MB at {rates['GB/s']:.0f} GB/s."
    ]


def _sides(figures: Figures) -> list[str]:
    texts = ["## Against PyTorch's eager mode"]
    for case, times in figures["sides"].items():
        fastest = min((side for side in times if side != "eager"), key=times.get)
        ratio = times["eager"] / times[fastest]
        rows = [
            {"side": side, "ms": ms, "x eager": times["eager"] / ms, "x litert": times["litert"] / ms}
            for side, ms in times.items()
        ]
        verdict = "met" if ratio >= AIM else "**missed**"
        texts += [
            f"### {case}",
            measure.table(rows),
            f"Target {AIM:g} times eager, by any runtime: {ratio:.2f} times by {fastest}, {verdict}.",
        ]
        if layers := figures.get("layers", {}).get(case):
            bound = layers["bound ms"]
            texts[-1] += (
                f" If every convolution ran at {layers['highest GFLOP/s']:.0f} GFLOP/s, the highest rate of a kind "
                f"of layer in any runtime, they would take {bound:.1f} ms, which is {times['eager'] / bound:.2f} "
                f"times eager; {fastest} takes {times[fastest] / bound:.2f} times that."
            )
    return texts


def _layers(figures: Figures) -> list[str]:
    texts = [
        "## Layer by layer",
        "The time of each kind of layer by the profiler of the runtime, its share, and its rate. The last column "
        'adds up the fastest runtime of every single layer. "all else" is everything that is no convolution.',
    ]
    for case, found in figures["layers"].items():
        whole = found["rows"][-1]
        best = min(value for name, value in whole.items() if name.endswith(" ms") and "fastest" not in name)
        gain = 100 * (1 - whole["fastest of all ms"] / best)
        odd = found["output channels that are no multiple of 16"]
        texts += [
            f"### {case}",
            measure.table(found["rows"]),
            f"A runtime with the fastest kernel of all three for every layer would take {gain:.0f} % less than the "
            f"fastest of them. Layers whose output channels are no multiple of 16: {odd}.",
        ]
    return texts


def _forms(figures: Figures) -> list[str]:
    return [
        "## Inverted residuals in strips, LiteRT",
        "Expansion, depthwise convolution and projection of a strip run one after the other, so that the hidden map "
        "does not leave the cache. The rows around a strip are computed twice.",
        measure.table(_against_first(figures["forms"], "form")),
    ]


def _options(figures: Figures) -> list[str]:
    return ["## Options of the runtimes", measure.table(_against_first(figures["options"], "option"))]


def _loading(figures: Figures) -> list[str]:
    return [
        "## Loading, LiteRT",
        "From the file to the first output. The cache is a second file, with the weights as XNNPACK packs them.",
        measure.table(_against_first(figures["loading"], "weights")),
    ]


def _against_first(tables: Figures, column: str) -> list[dict[str, Any]]:
    """Returns a row for each time, with its ratio to the first of its table."""
    rows = []
    for case, times in tables.items():
        first = next(iter(times.values()))
        rows += [
            {"case": case, column: name, "ms": ms, "of the first": ms / first} for name, ms in times.items()
        ]
    return rows


def _arm(figures: Figures) -> list[str]:
    rows = []
    for case, records in figures["arm"].items():
        whole = {each["format"]: each["M instructions"] for each in records if each["precision"] == "fp32"}
        rows += [
            {
                "case": case,
                "runtime": each["format"],
                "precision": each["precision"],
                "M instructions": each["M instructions"],
                "of fp32": each["M instructions"] / whole[each["format"]],
                "largest difference": f"{each['difference']:.1e}",
                "equal classes %": 100 * each["agreement"],
            }
            for each in records
        ]
    return [
        "## Half precision on ARMv8.2",
        "Instructions of the network on an emulated Cortex-A76, which do not depend on the load of the machine. "
        "Differences are from PyTorch in float32, as fractions of the largest logit; seeded weights are a hard case. "
        "ncnn finds no half precision in this emulator (`cpu_support_arm_asimdhp` is 0) and computes in float32.",
        measure.table(rows),
    ]
