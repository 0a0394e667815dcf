"""Runs of two processes, one of which is killed: the other one ends, and both together finish the run."""

import pathlib
import random
import signal
from signal import SIGKILL, SIGTERM
from typing import Any, NamedTuple

from experiments.campaign import recipe
from experiments.campaign.outcome import Outcome, Verdict, describe, verdict_of
from experiments.campaign.run import LIMIT, Run, closed, compared, wait
from experiments.campaign.server import Command, Ended
from experiments.forked import free_port

PART = "two processes"


class Kind(NamedTuple):
    """A signal to one of two processes, and the exit statuses of (the one that gets it, the other one)."""

    process: int
    signal: signal.Signals
    statuses: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.signal.name} to process {self.process} of 2"


KINDS = (
    Kind(0, SIGKILL, (-SIGKILL, 2)),
    Kind(1, SIGKILL, (-SIGKILL, 2)),
    Kind(0, SIGTERM, (128 + SIGTERM, 128 + SIGTERM)),
    Kind(1, SIGTERM, (128 + SIGTERM, 128 + SIGTERM)),
)


class Loss(NamedTuple):
    """A kind, and the share in [0, 1) of the steps after which it happens."""

    kind: Kind
    share: float


def plan(count: int, seed: int) -> list[Loss]:
    """Returns what happens to each of `count` runs."""
    rng = random.Random(seed)
    return [Loss(KINDS[index % len(KINDS)], rng.random()) for index in range(count)]


def reference(folder: pathlib.Path, cache: pathlib.Path) -> dict[str, Any]:
    """Returns the result of two processes that nothing disturbs."""
    run = Run(folder, cache)
    ended = [command.end(LIMIT) for command in start_two(run)]
    for end in ended:
        if end.status != 0:
            raise RuntimeError(f"two processes that nothing disturbs failed: {describe(end)}")
    return run.result()


def lose_one(folder: pathlib.Path, loss: Loss, cache: pathlib.Path, expected: dict[str, Any]) -> Outcome:
    """Sends a signal to one of two processes, and finishes the run with two."""
    run, kind = Run(folder, cache), loss.kind
    commands = start_two(run)
    step = int((0.1 + 0.7 * loss.share) * recipe.STEPS)
    wait(commands[0], lambda: run.step() >= step and run.newest() > 0)
    commands[kind.process].send_signal(kind.signal)
    # The other one comes second.
    ended = [commands[index].end(LIMIT) for index in (kind.process, 1 - kind.process)]
    verdict, detail = _first_failure(ended, kind.statuses)
    if verdict is Verdict.GOOD:
        verdict, detail = _finished(run, expected)
    return closed(Outcome(PART, str(kind), verdict, detail), folder)


def start_two(run: Run) -> list[Command]:
    """Starts two processes of one device each."""
    values = {"enabled": True, "coordinator": f"localhost:{free_port()}", "num_processes": 2}
    options = [f"--config.distributed.{key}={value}" for key, value in values.items()]
    return [run.start(*options, f"--config.distributed.process_id={index}") for index in range(2)]


def _finished(run: Run, expected: dict[str, Any]) -> tuple[Verdict, str]:
    newest, ended = run.newest(), [command.end(LIMIT) for command in start_two(run)]
    verdict, detail = _first_failure(ended, (0, 0))
    if verdict is not Verdict.GOOD:
        return Verdict.TRACEBACK if verdict is Verdict.TRACEBACK else Verdict.LOST, detail
    if f"resuming at step {newest} of" not in ended[0].stderr:
        return Verdict.LOST, f"it did not resume at its newest checkpoint, {newest}\n{describe(ended[0])}"
    return compared(run, expected)


def _first_failure(ended: list[Ended], statuses: tuple[int, int]) -> tuple[Verdict, str]:
    for end, status in zip(ended, statuses, strict=True):
        verdict = verdict_of(end, (status,))
        if verdict is not Verdict.GOOD:
            return verdict, "\n".join(describe(each) for each in ended)
    return Verdict.GOOD, ""
