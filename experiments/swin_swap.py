"""Swin-Tiny with its attention swapped (the paper's Swin table): parameters, operations and exported latency.

    python -m experiments.swin_swap [--rounds 5]     # 0 rounds leave out the latency

The backbone with four output norms and no head, at 512x512: parameters; MACs, with maps padded to windows of 7; CPU
time of one thread of ONNX Runtime, seeded weights, all kinds in turns. Accuracy is not measured: it takes ImageNet
(`configs/swin_imagenet.py`) and ADE20K. Writes experiments/results/swin_swap.json and .md.
"""

import argparse
import dataclasses
import functools
import time
from collections.abc import Callable

import jax
import torch
from flax import nnx

from convert import torch_swin
from convert.graph import rewrites
from experiments import measure
from experiments.attention_graphs import onnx_session
from seaformer_jax.models.macs import count_macs
from seaformer_jax.models.registry import create_model
from seaformer_jax.models.swin_config import SWINS

SIZE = (512, 512)
# Kind -> its name in the paper's table. Vanilla attention does not fit: 16384 x 16384 scores per head and layer.
KINDS = {
    "window_shift": "Swin (shifted windows)",
    "acmix_swin": "ACmix",
    "mixformer": "MixFormer",
    "axial_sum": "axial",
    "sea": "SEA, key 16, value 32",
    "vanilla": "global",
}
LATENCY = tuple(kind for kind in KINDS if kind != "vanilla")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    seconds = {}
    if rounds:
        runs = {kind: in_onnx(kind) for kind in LATENCY}
        seconds = measure.interleaved(runs, rounds, warm_up=1, clock=time.thread_time)
    rows = [{**cost(kind), **latency(kind, seconds)} for kind in KINDS]
    measure.write("swin_swap", {"size": SIZE, "rounds": rounds, "rows": rows})
    text = (
        f"# Swin-Tiny with its attention swapped\n\n`python -m experiments.swin_swap` on {measure.machine()['cpu']}: "
        f"the backbone with four output norms at {SIZE[0]}x{SIZE[1]}. MACs are those of maps padded to windows of 7. "
        "Latency is the CPU time of one thread of ONNX Runtime, medians, all kinds in turns; compare ratios. The "
        "paper's accuracies take ImageNet and ADE20K and were not measured; nor was the latency of global attention, "
        "whose scores take 3 GB in the first layers.\n\n"
        f"{measure.table(rows)}\n"
    )
    (measure.RESULTS / "swin_swap.md").write_text(text)
    print(text)


def cost(kind: str) -> dict:
    """Returns the row of a kind with parameters and operations."""
    model = nnx.eval_shape(functools.partial(create_model, "swin_tiny", attention=kind))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model.backbone, nnx.Param)))
    return {
        "attention": KINDS[kind],
        "`model.attention`": f"`{kind}`",
        "parameters, M": f"{parameters / 1e6:.2f}",
        "MACs, G": f"{count_macs(model.backbone, *SIZE).total / 1e9:.2f}",
    }


def latency(kind: str, seconds: dict[str, float]) -> dict:
    if kind not in seconds:
        return {"ms": "", "x Swin": ""}
    return {"ms": round(1e3 * seconds[kind]), "x Swin": round(seconds[kind] / seconds["window_shift"], 2)}


def in_onnx(kind: str) -> Callable[[], object]:
    """Returns a function that runs the backbone once in ONNX Runtime, on one thread."""
    print(f"exporting {kind}", flush=True)
    torch.manual_seed(0)
    backbone = torch_swin.Swin(dataclasses.replace(SWINS["swin_tiny"], attention=kind))
    model = rewrites.rewritten(backbone, SIZE, rewrites.REWRITES)
    return onnx_session(model, torch.randn(1, 3, *SIZE))


if __name__ == "__main__":
    main()
