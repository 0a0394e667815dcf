"""What the experiments that train share: running the documented commands, and reading what a run left behind."""

import json
import pathlib
import subprocess
import sys


def call(module: str, *arguments: str) -> None:
    """Prints and runs `python -m module arguments`; a failure ends the script with its status."""
    print(f"$ python -m {module} {' '.join(arguments)}", flush=True)
    if status := subprocess.call([sys.executable, "-m", module, *arguments]):
        sys.exit(status)


def train(run: pathlib.Path, config: str, *flags: str) -> pathlib.Path:
    """Trains with a recipe, or goes on with that, and evaluates; of a finished run nothing is done again."""
    call("seaformer_jax.train", f"--config={config}", f"--workdir={run}", *flags)
    if not (run / "results.json").exists():
        call("seaformer_jax.evaluate", f"--workdir={run}")
    return run


def curve(run: pathlib.Path) -> list[dict]:
    """The rows of metrics.jsonl; none before the first."""
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def minutes(run: pathlib.Path) -> float:
    """From claiming the workdir to the last row of metrics.jsonl: compilation and validation are part of it."""
    return ((run / "metrics.jsonl").stat().st_mtime - (run / "config.json").stat().st_mtime) / 60


def results(run: pathlib.Path) -> dict:
    """What `evaluate` wrote."""
    return json.loads((run / "results.json").read_text())
