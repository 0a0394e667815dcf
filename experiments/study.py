"""A study: variants of a CamVid run, each trained with several seeds; finished runs are kept, others resume."""

import argparse
import pathlib
import statistics
from collections.abc import Mapping, Sequence

from experiments import runs

_FEWEST = 2  # Seeds that a spread needs.


def parser(description: str, folder: str) -> argparse.ArgumentParser:
    """Returns the options that all studies share."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument(
        "--root", help="folder of CamVid; without it nothing is trained, and the tables are written"
    )
    options.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs") / folder)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--steps", type=int, default=3000)
    return options


def train(recipes: Mapping[str, Sequence[str]], options: argparse.Namespace) -> None:
    """Trains every variant with every seed, all variants of one seed first.

    Args:
        recipes: Variant -> its recipe and the flags that it adds.
        options: Of `parser`.
    """
    if not options.root:
        return
    waiting = [(name, seed) for seed in range(options.seeds) for name in recipes]
    for number, (name, seed) in enumerate(waiting, start=1):
        folder = workdir(options.out, name, seed, options.steps)
        print(f"run {number}/{len(waiting)}: {name}, seed {seed}", flush=True)
        if score(folder, options.steps) is None:
            recipe, *flags = recipes[name]
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


def workdir(out: pathlib.Path, name: str, seed: int, steps: int) -> pathlib.Path:
    """Returns the workdir of one run. Runs of another length are others."""
    return out / f"{name}_{steps}_{seed}"


def score(run: pathlib.Path, steps: int) -> float | None:
    """Returns the mIoU in percent at the end of a run, or None if it is not finished."""
    last = runs.curve(run)[-1:]
    return last[0].get("val/mIoU") if last and last[0]["step"] == steps else None


def cells(name: str, options: argparse.Namespace) -> dict[str, str]:
    """Returns the columns of a variant: mIoU by seed, their mean and their spread."""
    folders = [workdir(options.out, name, seed, options.steps) for seed in range(options.seeds)]
    found = [value for folder in folders if (value := score(folder, options.steps)) is not None]
    return {
        "mIoU by seed": ", ".join(f"{value:.2f}" for value in found),
        "mean": f"{statistics.mean(found):.2f}" if found else "",
        "largest - smallest": f"{max(found) - min(found):.2f}" if len(found) >= _FEWEST else "",
    }
