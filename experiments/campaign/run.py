"""A run that the campaign disturbs, and what has to be the same when it is complete."""

import json
import pathlib
import shutil
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.campaign import recipe
from experiments.campaign.outcome import Outcome, Verdict, describe, verdict_of
from experiments.campaign.server import Command, Ended
from seaformer_jax.errors import UserError
from seaformer_jax.training import checkpoint, checkpoint_files

LIMIT = 300.0  # Seconds that any command may take.
_POLL = 0.002  # Seconds between two looks at the files of a run: a save takes some 50 ms.


class Run:
    """A run of `recipe.py` in its workdir.

    Args:
        folder: The workdir.
        cache: Folder of the compilation cache.
        changes: Keys of the config, with "__" in place of ".", and their values.
    """

    def __init__(self, folder: pathlib.Path, cache: pathlib.Path, **changes: Any):
        self.folder = folder
        changes["compilation_cache"] = cache
        options = [f"--config.{key.replace('__', '.')}={value}" for key, value in changes.items()]
        self.arguments = [f"--config={recipe.RECIPE}", f"--workdir={folder}", *options]

    def start(self, *options: str) -> Command:
        """Starts the run, or resumes it."""
        return Command("seaformer_jax.train", [*self.arguments, *options])

    def finish(self) -> Ended:
        """Starts or resumes the run, and waits until it is complete."""
        return self.start().end(LIMIT)

    def step(self) -> int:
        """Returns the last step in metrics.jsonl; 0 if there is none."""
        path = self.folder / "metrics.jsonl"
        # The run may be writing the last line.
        rows = [line for line in _text(path).splitlines(keepends=True) if line.endswith("\n")]
        return json.loads(rows[-1])["step"] if rows else 0

    def newest(self) -> int:
        """Returns the step of the newest complete checkpoint; 0 if there is none."""
        return max(checkpoint.saved_steps(self.folder), default=0)

    def unfinished(self) -> set[str]:
        """Returns the names of the checkpoints that are being written, or that a killed run left behind."""
        return {path.name for path in (self.folder / "checkpoints").glob("*") if not path.name.isdigit()}

    def result(self) -> dict[str, Any]:
        """Returns what has to be the same after every disturbance: arrays as bytes, and the training curve.

        Raises:
            UserError: The newest checkpoint cannot be read.
        """
        newest = self.folder / "checkpoints" / str(self.newest())
        weights = {ema: checkpoint.load_weights(self.folder, use_ema=ema) for ema in (False, True)}
        return {
            "step": [step for step, *_ in weights.values()],
            "weights": {ema: _bytes(trees) for ema, (_, *trees) in weights.items()},
            # Of every array of the state, those of the optimiser included, as it was in memory.
            "checksums": checkpoint_files.read_json(newest, "checksums"),
            "losses": [row for row in self._rows("train/loss")],
            "validation": [row for row in self._rows("val/loss")],
        }

    def _rows(self, name: str) -> list[tuple[int, float]]:
        rows = map(json.loads, _text(self.folder / "metrics.jsonl").splitlines())
        return [(row["step"], row[name]) for row in rows if name in row]


def wait(command: Command, condition: Callable[[], bool]) -> bool:
    """Waits until `condition` holds; returns False if the command ends before that, or takes too long."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        if command.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True


def completed(run: Run, expected: dict[str, Any]) -> tuple[Verdict, str]:
    """Resumes a run to its end and compares it with the run that nothing disturbed.

    Args:
        run: The disturbed run.
        expected: `Run.result` of the other one.

    Returns:
        The verdict, and for a failure the reason.
    """
    newest, ended = run.newest(), run.finish()
    verdict = verdict_of(ended, (0,))
    if verdict is not Verdict.GOOD:
        return Verdict.TRACEBACK if verdict is Verdict.TRACEBACK else Verdict.LOST, describe(ended)
    # Starting anew would give the same result, and is nevertheless a loss.
    if 0 < newest < recipe.STEPS and f"resuming at step {newest} of" not in ended.stderr:
        return Verdict.LOST, f"it did not resume at its newest checkpoint, {newest}\n{describe(ended)}"
    return compared(run, expected)


def compared(run: Run, expected: dict[str, Any]) -> tuple[Verdict, str]:
    """Compares a complete run with the run that nothing disturbed; returns as `completed`."""
    try:
        found = run.result()
    except (UserError, checkpoint_files.Damaged, checkpoint_files.Unavailable) as error:
        return Verdict.LOST, f"the last checkpoint cannot be read: {error}"
    differing = [name for name, value in expected.items() if found[name] != value]
    return (Verdict.LOST, f"other {' and '.join(differing)}") if differing else (Verdict.GOOD, "")


def closed(outcome: Outcome, folder: pathlib.Path) -> Outcome:
    """Removes the folder of a case unless it failed; returns the outcome."""
    if outcome.verdict in (Verdict.GOOD, Verdict.LATE):
        shutil.rmtree(folder)
    return outcome


def _text(path: pathlib.Path) -> str:
    return path.read_text() if path.exists() else ""


def _bytes(tree: Any) -> Any:
    """Returns the tree with the bytes of each array in its place: NaN and -0.0 compare as what they are."""
    if isinstance(tree, dict):
        return {name: _bytes(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_bytes(value) for value in tree]
    return np.asarray(tree).tobytes()
