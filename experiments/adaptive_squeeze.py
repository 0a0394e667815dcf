"""Compares SeaFormer++ with SeaFormer on real data: adaptive block and ICLR block with the same recipe and seeds.

    python -m experiments.adaptive_squeeze trashnet --root PATH/TO/trashnet [--seeds 3] [--steps 2500]
    python -m experiments.adaptive_squeeze camvid --root PATH/TO/camvid --init WORKDIR [--seeds 3] [--steps 6000]

Trains SeaFormer-Tiny and SeaFormer++-Tiny with every seed, one run after the other; finished runs are kept in the
results. TrashNet runs `configs/trashnet.py` from scratch. CamVid runs `configs/camvid.py` from a TrashNet classifier
of the ICLR model, whose layers both models contain. Writes the table of what is there to
experiments/results/adaptive_squeeze_trashnet.json and .md, or _camvid, again after every run; without --root nothing
is trained. `experiments.adaptive_cost` measures the cost of the block.
"""

import argparse

from experiments import measure, study

MODELS = {"SeaFormer-Tiny": "seaformer_tiny", "SeaFormer++-Tiny": "seaformer_plus_tiny"}
METRICS = {"trashnet": "top1", "camvid": "mIoU"}
START = {"trashnet": "from scratch", "camvid": "from a TrashNet classifier"}
STEPS = {"trashnet": 2500, "camvid": 6000}  # Of the recipes.


def main() -> None:
    parser = study.parser(__doc__.splitlines()[0], "adaptive")
    parser.set_defaults(steps=None)
    parser.add_argument("data", choices=METRICS)
    parser.add_argument("--init", help="workdir or checkpoint of a TrashNet classifier, for camvid")
    options = parser.parse_args()
    if options.root and (options.data == "camvid") != bool(options.init):
        parser.error("camvid starts from the classifier of --init, and trashnet from scratch")
    options.steps = options.steps or STEPS[options.data]
    start = (f"--config.init_from={options.init}",) if options.init else ()
    recipes = {
        label: (f"configs/{options.data}.py:tiny", f"--config.model.name={model}", *start)
        for label, model in MODELS.items()
    }
    scores = study.recorded(name(options), options.steps)

    def save() -> None:
        write(options, scores)

    study.train(recipes, options, scores, save, METRICS[options.data])


def name(options: argparse.Namespace) -> str:
    """Returns the name of the result files."""
    return f"adaptive_squeeze_{options.data}"


def write(options: argparse.Namespace, scores: study.Scores) -> None:
    """Writes the result files, and prints the table."""
    metric = METRICS[options.data]
    base = next(iter(MODELS))
    rows = [
        {
            "model": label,
            **study.cells(scores.get(label, {}), metric),
            f"minus {base}": study.differences(scores.get(label, {}), scores.get(base, {})),
        }
        for label in MODELS
    ]
    measure.write(name(options), {"steps": options.steps, "scores": scores, "rows": rows})
    text = (
        f"# The adaptive block on {options.data}\n\n`python -m experiments.adaptive_squeeze {options.data} --steps "
        f"{options.steps}`: the ICLR block and the block of SeaFormer++ with the same recipe, {options.steps} steps "
        f"{START[options.data]}; {metric} on the validation split, in percent. {study.BY_SEED}\n\n"
        f"{measure.table(rows)}\n"
    )
    (measure.RESULTS / f"{name(options)}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
