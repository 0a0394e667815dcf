"""The paper's ablations of SeaFormer-T: what each part costs, and what it brings on CamVid.

    python -m experiments.ablations [--root PATH/TO/camvid] [--seeds 3] [--steps 3000] [--rounds 31]

Detail input and enhancement without attention, multiplication or addition, position embeddings, fusion methods and
fusion widths. Costs: parameters, MACs and CPU time of one thread of ONNX Runtime (network to logits at 1/8, seeded
weights, all variants in turns) at 512x512 with 150 classes. With --root every variant is trained from scratch with
every seed, one run after the other; finished runs are kept in the results. --rounds=0 leaves out the latency. Writes
the table of what is there to experiments/results/ablations.json and .md, again after every run.
"""

import functools
import json
import time
from typing import Any

import jax
import torch
from flax import nnx

from convert import torch_segmentation
from convert.graph import rewrites
from experiments import measure, study
from experiments.attention_graphs import onnx_session
from seaformer_jax.models.macs import count_macs
from seaformer_jax.models.registry import create_model

NAME, MODEL, SIZE, CLASSES = "ablations", "seaformer_tiny", (512, 512), 150
# Study -> variant -> model options; the published model is the first row.
STUDIES: dict[str, dict[str, dict[str, Any]]] = {
    "published": {"published": {}},
    "detail": {
        "without enhancement": {"detail_input": "none"},
        "enhancement without attention": {"attention": "enhancement"},
        "conv": {"detail_input": "conv"},
        "upconv": {"detail_input": "upconv"},
    },
    "combine": {"add": {"detail_combine": "add"}},
    "positions": {"without": {"position_embedding": False}},
    "fusion": {method: {"fusion": method} for method in ("multiply", "add", "sigmoid_add")},
    "fusion widths": {str(widths): {"fusion_widths": widths} for widths in ((32, 48), (96, 128), (128, 160))},
}


def main() -> None:
    parser = study.parser(__doc__.splitlines()[0], NAME)
    parser.add_argument("--rounds", type=int, default=31)
    options = parser.parse_args()
    variants = {(kind, name): changes for kind, rows in STUDIES.items() for name, changes in rows.items()}
    milliseconds = latencies(variants, options.rounds)
    recipes = {
        folder(key): ("configs/camvid.py:tiny", *(f"--config.model.{k}={v}" for k, v in changes.items()))
        for key, changes in variants.items()
    }
    costs = {key: cost(changes) for key, changes in variants.items()}
    scores = study.recorded(NAME, options.steps)

    def save() -> None:
        write(costs, milliseconds, scores, options.steps)

    study.train(recipes, options, scores, save)


def write(
    costs: dict[tuple[str, str], dict], milliseconds: dict[str, float], scores: study.Scores, steps: int
) -> None:
    """Writes the result files, and prints the table."""
    published = scores.get(folder(("published", "published")), {})
    rows = [
        {
            "study": key[0],
            "variant": key[1],
            **row,
            "ms": f"{milliseconds[folder(key)]:.2f}" if folder(key) in milliseconds else "",
            **study.cells(scores.get(folder(key), {})),
            "minus published": study.differences(scores.get(folder(key), {}), published),
        }
        for key, row in costs.items()
    ]
    measure.write(NAME, {"steps": steps, "scores": scores, "rows": rows, "milliseconds": milliseconds})
    (measure.RESULTS / f"{NAME}.md").write_text(text := markdown(rows, steps))
    print(text)


def folder(key: tuple[str, str]) -> str:
    """Returns the name of a variant's runs."""
    return "_".join(key).translate(str.maketrans({" ": "_", "(": None, ")": None, ",": None}))


def latencies(variants: dict[tuple[str, str], dict], rounds: int) -> dict[str, float]:
    """Returns the milliseconds of every variant; those of the last run if it had the same, or if `rounds` is 0."""
    path = measure.RESULTS / f"{NAME}.json"
    recorded = json.loads(path.read_text())["milliseconds"] if path.exists() else {}
    if recorded.keys() == {folder(key) for key in variants} or not rounds:
        return recorded
    sides = {folder(key): in_onnx(changes) for key, changes in variants.items()}
    seconds = measure.interleaved(sides, rounds, clock=time.thread_time)
    return {name: 1e3 * value for name, value in seconds.items()}


def in_onnx(changes: dict):
    """Returns a function that runs a variant once in ONNX Runtime, on one thread."""
    print(f"exporting {changes}", flush=True)
    torch.manual_seed(0)
    model = torch_segmentation.create_model(MODEL, CLASSES, **changes)
    return onnx_session(rewrites.deploy(model, SIZE), torch.randn(1, 3, *SIZE))


def cost(changes: dict) -> dict:
    model = nnx.eval_shape(
        functools.partial(create_model, MODEL, "segmentation", num_classes=CLASSES, **changes)
    )
    parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    return {
        "parameters, M": f"{parameters / 1e6:.3f}",
        "MACs, G": f"{count_macs(model, *SIZE).total / 1e9:.3f}",
    }


def markdown(rows: list[dict], steps: int) -> str:
    return (
        f"# Ablations of SeaFormer-T\n\n`python -m experiments.{NAME} --steps {steps}` on "
        f"{measure.machine()['cpu']}. Parameters, MACs and latency are those of the segmentation model at "
        f"{SIZE[0]}x{SIZE[1]} with {CLASSES} classes. Latency is the CPU time of one thread of ONNX Runtime to the "
        f"logits at 1/8, medians, all variants in turns; compare ratios. mIoU is that of CamVid, {steps} steps from "
        f"scratch, in percent; empty cells are not trained. {study.BY_SEED}\n\n{measure.table(rows)}\n"
    )


if __name__ == "__main__":
    main()
