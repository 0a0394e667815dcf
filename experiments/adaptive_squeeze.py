"""SeaFormer++ against SeaFormer on real data: the adaptive block and the ICLR block, same recipes, same seeds.

    python -m experiments.adaptive_squeeze [--trashnet PATH/TO/trashnet] [--camvid PATH/TO/camvid \\
        --init runs/trashnet] [--out runs/adaptive] [--seeds 2]

Trains SeaFormer-Tiny and SeaFormer++-Tiny with the documented commands, one run after the other (a finished run is
not trained again): `configs/trashnet.py` from scratch, `configs/camvid.py` from the same classifier, of the ICLR
model, which both contain. Of the two data sets those that are named. Writes
experiments/results/adaptive_squeeze.json and .md. What the block costs is measured by `experiments.adaptive_cost`.
"""

import argparse
import pathlib
import statistics

from experiments import measure, runs

MODELS = {"SeaFormer-Tiny": "seaformer_tiny", "SeaFormer++-Tiny": "seaformer_plus_tiny"}
METRICS = {"trashnet": "top1", "camvid": "mIoU"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trashnet")
    parser.add_argument("--camvid")
    parser.add_argument("--init", help="of CamVid: workdir or checkpoint of an ICLR classifier")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/adaptive"))
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    flags = {
        "trashnet": (f"--config.data.root={options.trashnet}",),
        "camvid": (f"--config.data.root={options.camvid}", f"--config.init_from={options.init}"),
    }
    chosen = {data: metric for data, metric in METRICS.items() if vars(options)[data]}
    scores = {data: {label: [] for label in MODELS} for data in chosen}
    for seed in range(options.seeds):
        for data, metric in chosen.items():
            for label, model in MODELS.items():
                run = options.out / f"{data}_{model.removeprefix('seaformer_')}_{seed}"
                config = (f"--config.model.name={model}", f"--config.seed={seed}")
                runs.train(run, f"configs/{data}.py:tiny", *config, *flags[data])
                scores[data][label].append(round(runs.results(run)[metric], 2))
    write_results(options.seeds, scores)


def write_results(seeds: int, scores: dict[str, dict[str, list[float]]]) -> None:
    measure.write("adaptive_squeeze", {"seeds": seeds, **scores})
    rows = [
        f"| {data}, {METRICS[data]} % | {label} | {', '.join(map(str, found))} | **{statistics.mean(found):.2f}** |"
        for data, sides in scores.items()
        for label, found in sides.items()
    ]
    lines = [
        "# The adaptive block on real data",
        "`python -m experiments.adaptive_squeeze`: the ICLR block and the block of SeaFormer++ with the same "
        f"recipes, seeds 0 to {seeds - 1}.",
        "| data set, metric | model | by seed | mean |\n|---|---|---|---:|\n" + "\n".join(rows),
    ]
    (measure.RESULTS / "adaptive_squeeze.md").write_text("\n\n".join(lines) + "\n")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
