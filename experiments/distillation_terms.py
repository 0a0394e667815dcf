"""Measures the gain of each distillation term on CamVid, with a student that starts from the teacher's weights.

    python -m experiments.distillation_terms --root PATH/TO/camvid --teacher runs/camvid

The student of `experiments.distillation` starts from its teacher's weights, which is possible because both have the
same size. It trains 3000 steps with none of the terms, with one, or with all. Finished runs are not repeated. Writes
experiments/results/distillation_terms.json and .md.
"""

import argparse
import pathlib

from experiments import measure, runs

# Name of the side -> weights of the terms.
SIDES = {
    "none": {"cross": 0, "feature": 0, "output": 0},
    "cross": {"cross": 1, "feature": 0, "output": 0},
    "feature": {"cross": 0, "feature": 1, "output": 0},
    "feature5": {"cross": 0, "feature": 5, "output": 0},
    "output": {"cross": 0, "feature": 0, "output": 2},
    "all": {"cross": 1, "feature": 1, "output": 1},
}
STEPS = 3000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True)
    parser.add_argument("--teacher", type=pathlib.Path, required=True, help="run of configs/camvid.py:tiny")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/distillation_terms"))
    options = parser.parse_args()
    rows = [row(name, train(name, options)) for name in SIDES]
    measure.write("distillation_terms", {"steps": STEPS, "rows": rows})
    text = (
        "# The terms of distillation on CamVid\n\n`python -m experiments.distillation_terms`: SeaFormer-Tiny at half "
        "resolution, starting from the weights of its teacher, SeaFormer-Tiny at full resolution "
        f"({runs.results(options.teacher)['mIoU']:.2f} % mIoU); {STEPS} steps, seed 0.\n\n"
    )
    (measure.RESULTS / "distillation_terms.md").write_text(text + measure.table(rows) + "\n")
    measure.print_table(rows)


def train(name: str, options: argparse.Namespace) -> pathlib.Path:
    """Trains and evaluates one side; returns the workdir."""
    return runs.train(
        options.out / name,
        "configs/distill_camvid.py:tiny",
        f"--config.data.root={options.root}",
        f"--config.teacher.source={options.teacher}",
        f"--config.init_from={options.teacher}",
        f"--config.total_steps={STEPS}",
        "--config.eval.every=1000",
        "--config.checkpoint.every=1000",
        *(f"--config.distillation.{term}_weight={weight}" for term, weight in SIDES[name].items()),
    )


def row(name: str, run: pathlib.Path) -> dict:
    weights = ", ".join(f"{term} {weight}" for term, weight in SIDES[name].items() if weight)
    results = runs.results(run)
    return {
        "terms": weights or "none",
        **{f"{key} %": f"{results[key]:.2f}" for key in ("mIoU", "mAcc", "aAcc")},
    }


if __name__ == "__main__":
    main()
