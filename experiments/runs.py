"""Helpers of the experiments that train: running the documented commands, and reading the results of a run."""

import json
import pathlib
import subprocess
import sys


def call(module: str, *arguments: str) -> None:
    """Prints and runs `python -m module arguments`; if that fails, ends the script with the same exit status."""
    print(f"$ python -m {module} {' '.join(arguments)}", flush=True)
    if status := subprocess.call([sys.executable, "-m", module, *arguments]):
        sys.exit(status)


def only_train(run: pathlib.Path, config: str, *flags: str) -> None:
    """Trains with a recipe in the workdir `run`; an unfinished run resumes."""
    call("seaformer_jax.train", f"--config={config}", f"--workdir={run}", *flags)


def train(run: pathlib.Path, config: str, *flags: str) -> pathlib.Path:
    """Trains as `only_train` and evaluates; returns the workdir. Nothing is repeated in a finished run."""
    only_train(run, config, *flags)
    if not (run / "results.json").exists():
        call("seaformer_jax.evaluate", f"--workdir={run}")
    return run


def curve(run: pathlib.Path) -> list[dict]:
    """Returns the rows of metrics.jsonl, an empty list if the file does not exist yet."""
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def minutes(run: pathlib.Path) -> float:
    """Returns the minutes from creating the workdir to the last row of metrics.jsonl.

    They include compilation and validation.
    """
    return ((run / "metrics.jsonl").stat().st_mtime - (run / "config.json").stat().st_mtime) / 60


def last_scores(run: pathlib.Path) -> dict[str, float]:
    """Returns the scores of the last validation during training, such as {"top1": 81.5, ...}."""
    scores = [{key[4:]: row[key] for key in row if key.startswith("val/")} for row in curve(run)]
    return [found for found in scores if found][-1]


def results(run: pathlib.Path) -> dict:
    """Returns the scores that `evaluate` wrote."""
    return json.loads((run / "results.json").read_text())
