"""Compares SeaFormer++ with SeaFormer on real data: adaptive block and ICLR block with the same recipe and seeds.

    python -m experiments.adaptive_squeeze trashnet --root PATH/TO/trashnet [--seeds 3]
    python -m experiments.adaptive_squeeze camvid --root PATH/TO/camvid --init runs/trashnet [--seeds 2]

Trains SeaFormer-Tiny and SeaFormer++-Tiny with the documented commands, one run after the other; finished runs are
not repeated. TrashNet runs `configs/trashnet.py` from scratch. CamVid runs `configs/camvid.py` from a classifier of
the ICLR model, whose layers both models contain. Writes experiments/results/adaptive_squeeze_trashnet.json and .md,
or _camvid. `experiments.adaptive_cost` measures the cost of the block.
"""

import argparse
import pathlib
import statistics

from experiments import measure, runs

MODELS = {"SeaFormer-Tiny": "seaformer_tiny", "SeaFormer++-Tiny": "seaformer_plus_tiny"}
# Scores on the validation split, in percent except for the loss.
METRICS = {"trashnet": ("top1", "loss"), "camvid": ("mIoU", "aAcc")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=METRICS)
    parser.add_argument("--root", required=True)
    parser.add_argument("--init", help="workdir or checkpoint of an ICLR classifier; without it from scratch")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/adaptive"))
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    scores = {label: [] for label in MODELS}
    for seed in range(options.seeds):
        for label, model in MODELS.items():
            scores[label].append(runs.results(train(model, seed, options)))
    write_results(options, scores)


def train(model: str, seed: int, options: argparse.Namespace) -> pathlib.Path:
    """Trains and evaluates a model with a seed; returns the workdir."""
    return runs.train(
        options.out / f"{options.data}_{model.removeprefix('seaformer_')}_{seed}",
        f"configs/{options.data}.py:tiny",
        f"--config.model.name={model}",
        f"--config.seed={seed}",
        f"--config.data.root={options.root}",
        *([f"--config.init_from={options.init}"] if options.init else []),
    )


def write_results(options: argparse.Namespace, scores: dict[str, list[dict]]) -> None:
    """Writes the result files from the scores of every model, one dictionary per seed."""
    rows = [
        row(metric, label, [results[metric] for results in by_seed])
        for metric in METRICS[options.data]
        for label, by_seed in scores.items()
    ]
    name = f"adaptive_squeeze_{options.data}"
    measure.write(name, {"seeds": options.seeds, "rows": rows})
    text = (
        f"# The adaptive block on {options.data}\n\n`python -m experiments.adaptive_squeeze {options.data}`: the "
        f"ICLR block and the block of SeaFormer++ with the same recipe, seeds 0 to {options.seeds - 1}.\n\n"
    )
    (measure.RESULTS / f"{name}.md").write_text(text + measure.table(rows) + "\n")
    measure.print_table(rows)


def row(metric: str, label: str, values: list[float]) -> dict:
    return {
        "metric": metric,
        "model": label,
        "by seed": ", ".join(f"{value:.4g}" for value in values),
        "mean": f"{statistics.mean(values):.4g}",
    }


if __name__ == "__main__":
    main()
