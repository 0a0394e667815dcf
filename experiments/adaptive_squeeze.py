"""SeaFormer++ against SeaFormer on real data: the adaptive block and the ICLR block, same recipe, same seeds.

    python -m experiments.adaptive_squeeze trashnet --root PATH/TO/trashnet [--seeds 3]
    python -m experiments.adaptive_squeeze camvid --root PATH/TO/camvid --init runs/trashnet [--seeds 2]

Trains SeaFormer-Tiny and SeaFormer++-Tiny with the documented commands, one run after the other (a finished run is
not trained again): `configs/trashnet.py` from scratch, or `configs/camvid.py` from a classifier of the ICLR model,
which both contain. Writes experiments/results/adaptive_squeeze_trashnet.json and .md, or _camvid. What the block
costs is measured by `experiments.adaptive_cost`.
"""

import argparse
import pathlib
import statistics

from experiments import measure, runs

MODELS = {"SeaFormer-Tiny": "seaformer_tiny", "SeaFormer++-Tiny": "seaformer_plus_tiny"}
# Of the validation split; in percent, but for the loss.
METRICS = {"trashnet": ("top1", "loss"), "camvid": ("mIoU", "aAcc")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=METRICS)
    parser.add_argument("--root", required=True)
    parser.add_argument("--init", help="workdir or checkpoint of an ICLR classifier; without it from scratch")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/adaptive"))
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    found = {label: [] for label in MODELS}
    for seed in range(options.seeds):
        for label, model in MODELS.items():
            found[label].append(runs.results(train(model, seed, options)))
    write_results(options, found)


def train(model: str, seed: int, options: argparse.Namespace) -> pathlib.Path:
    return runs.train(
        options.out / f"{options.data}_{model.removeprefix('seaformer_')}_{seed}",
        f"configs/{options.data}.py:tiny",
        f"--config.model.name={model}",
        f"--config.seed={seed}",
        f"--config.data.root={options.root}",
        *([f"--config.init_from={options.init}"] if options.init else []),
    )


def write_results(options: argparse.Namespace, found: dict[str, list[dict]]) -> None:
    rows = [
        row(metric, label, [results[metric] for results in of_seeds])
        for metric in METRICS[options.data]
        for label, of_seeds in found.items()
    ]
    name = f"adaptive_squeeze_{options.data}"
    measure.write(name, {"seeds": options.seeds, "rows": rows})
    text = (
        f"# The adaptive block on {options.data}\n\n`python -m experiments.adaptive_squeeze {options.data}`: the "
        f"ICLR block and that of SeaFormer++ with the same recipe, seeds 0 to {options.seeds - 1}.\n\n"
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
