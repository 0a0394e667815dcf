"""A study: variants of a run on small data, each trained with several seeds.

The scores of finished runs are in the study's result file. So a study can be continued on another machine, with more
seeds or variants, and nothing is repeated; a run that was interrupted resumes.
"""

import argparse
import json
import pathlib
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence

from experiments import measure, runs

_FEWEST = 2  # Seeds that a spread needs.
# Explains the column of `differences` to readers of a table.
BY_SEED = (
    "The last column compares runs with the same seed, which see the same batches; a difference whose sign changes "
    "with the seed is none."
)
Scores = dict[str, dict[str, float]]  # Variant -> seed -> score in percent.


def parser(description: str, folder: str) -> argparse.ArgumentParser:
    """Returns the options that all studies share."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument(
        "--root", help="folder of the data; without it nothing is trained, and the tables are written"
    )
    options.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs") / folder)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--steps", type=int, default=3000)
    return options


def recorded(name: str, steps: int) -> Scores:
    """Returns the scores in the result file of the study `name`.

    Ends the command if they are of runs of another length, because they would be lost.
    """
    path = measure.RESULTS / f"{name}.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    if (scores := found.get("scores")) and found["steps"] != steps:
        sys.exit(
            f"error: {path} has scores of runs of {found['steps']} steps, and --steps is {steps}; "
            f"give --steps={found['steps']}, or move the file away to start anew"
        )
    return scores or {}


def train(
    recipes: Mapping[str, Sequence[str]],
    options: argparse.Namespace,
    scores: Scores,
    save: Callable[[], object],
    metric: str = "mIoU",
) -> None:
    """Trains every variant with every seed, all variants of one seed first.

    Args:
        recipes: Variant -> its recipe and the flags that it adds.
        options: Of `parser`.
        scores: Finished runs, which are not repeated. Every run that ends is added.
        save: Writes the scores; called at first and after every run.
        metric: The score that is kept, of the last validation during training.
    """
    save()
    if not options.root:
        return
    planned = [(name, seed) for seed in range(options.seeds) for name in recipes]
    waiting = [(name, seed) for name, seed in planned if str(seed) not in scores.get(name, {})]
    for number, (name, seed) in enumerate(waiting, start=1):
        print(f"run {number}/{len(waiting)}: {name}, seed {seed}", flush=True)
        recipe, *flags = recipes[name]
        folder = workdir(options.out, name, seed, options.steps)
        runs.only_train(
            folder,
            recipe,
            *flags,
            f"--config.data.root={options.root}",
            f"--config.seed={seed}",
            f"--config.total_steps={options.steps}",
            f"--config.optim.schedule.warmup_steps={min(200, options.steps // 3)}",
            "--config.eval.every=0",
        )
        scores.setdefault(name, {})[str(seed)] = round(runs.last_scores(folder)[metric], 2)
        save()


def workdir(out: pathlib.Path, name: str, seed: int, steps: int) -> pathlib.Path:
    """Returns the workdir of one run. Runs of another length are others."""
    return out / f"{name}_{steps}_{seed}"


def cells(scores: Mapping[str, float], metric: str = "mIoU") -> dict[str, str]:
    """Returns the columns of a variant from its scores by seed: all of them, their mean and their spread."""
    found = [score for _, score in sorted(scores.items(), key=lambda item: int(item[0]))]
    return {
        f"{metric} by seed": ", ".join(f"{value:.2f}" for value in found),
        "mean": f"{statistics.mean(found):.2f}" if found else "",
        "largest - smallest": f"{max(found) - min(found):.2f}" if len(found) >= _FEWEST else "",
    }


def differences(scores: Mapping[str, float], base: Mapping[str, float]) -> str:
    """Returns what a variant has more than another one with the same seed, and so with the same batches."""
    seeds = sorted(scores.keys() & base.keys(), key=int)
    return ", ".join(f"{scores[seed] - base[seed]:+.2f}" for seed in seeds)
