"""Runs that are killed again and again, and finish as if nothing had happened."""

import contextlib
import os
import pathlib
import random
import re
import signal
import time
from signal import SIGINT, SIGKILL, SIGTERM
from typing import Any, NamedTuple

from experiments.campaign import recipe
from experiments.campaign.outcome import HARMLESS, Outcome, Verdict, describe, verdict_of
from experiments.campaign.run import LIMIT, Run, closed, completed, wait
from experiments.campaign.server import Command, Ended

PART = "kills"
_PER_RUN = 4  # Kills of one run, before it may finish.
_SAVE_SECONDS = 0.05  # A kill during a save comes at most this long after the save began.

STARTING, STEP, SAVE = "while starting", "at a step", "during a save"
PROCESS, GROUP, WORKER = "process", "process group", "data worker"


class Kind(NamedTuple):
    """A way to disturb a run.

    Attributes:
        workers: `data.workers` of the run.
        moment: STARTING, STEP or SAVE.
        signal: The signal that is sent.
        target: Who gets it: PROCESS (the run's main process), GROUP or WORKER (one process of the group).
    """

    workers: int
    moment: str
    signal: signal.Signals
    target: str

    def __str__(self) -> str:
        return f"{self.signal.name} to the {self.target} {self.moment}, {self.workers} workers"


# A start with workers costs three times as much as one without.
KINDS = (
    Kind(0, STARTING, SIGKILL, PROCESS),
    Kind(0, STEP, SIGKILL, PROCESS),
    Kind(0, SAVE, SIGKILL, PROCESS),
    Kind(0, SAVE, SIGKILL, PROCESS),
    Kind(0, STARTING, SIGTERM, PROCESS),
    Kind(0, STEP, SIGTERM, PROCESS),
    Kind(0, SAVE, SIGTERM, GROUP),
    Kind(0, STARTING, SIGINT, GROUP),
    Kind(0, STEP, SIGINT, GROUP),
    Kind(0, SAVE, SIGINT, PROCESS),
    Kind(2, STEP, SIGKILL, PROCESS),
    Kind(2, SAVE, SIGKILL, GROUP),
    Kind(2, STEP, SIGTERM, GROUP),
    Kind(2, STEP, SIGINT, GROUP),
    Kind(2, STEP, SIGKILL, WORKER),
)
# A signal that comes before the loop listens ends the process at once.
_STATUSES = {SIGKILL: (-SIGKILL,), SIGTERM: (128 + SIGTERM, -SIGTERM), SIGINT: (128 + SIGINT, -SIGINT)}
# What a run says that was stopped.
_CHECKPOINT = re.compile(r"with a checkpoint at step (\d+)")


class Kill(NamedTuple):
    """A kind, and when exactly: `share` in [0, 1) of the time or of the steps that it may choose from."""

    kind: Kind
    share: float


class Reference(NamedTuple):
    """The run that nothing disturbs.

    Attributes:
        folder: Its workdir.
        cache: Folder of the compilation cache, filled.
        result: Its `Run.result`.
        starting: Seconds from its start to its first step, with the cache.
    """

    folder: pathlib.Path
    cache: pathlib.Path
    result: dict[str, Any]
    starting: float


def plan(count: int, seed: int) -> list[list[Kill]]:
    """Returns the kills of each run; every kind comes about equally often, in random order."""
    rng = random.Random(seed)
    kinds = [KINDS[index % len(KINDS)] for index in range(count)]
    rng.shuffle(kinds)
    runs = []
    for workers in sorted({kind.workers for kind in kinds}):
        kills = [Kill(kind, rng.random()) for kind in kinds if kind.workers == workers]
        runs += [kills[first : first + _PER_RUN] for first in range(0, len(kills), _PER_RUN)]
    return runs


def disturb(folder: pathlib.Path, kills: list[Kill], reference: Reference) -> list[Outcome]:
    """Kills a run again and again, lets it finish and returns the outcome of each kill."""
    run = Run(folder, reference.cache, data__workers=kills[0].kind.workers)
    outcomes = [_killed(run, kill, number, reference.starting) for number, kill in enumerate(kills)]
    verdict, reason = completed(run, reference.result)
    if verdict is not Verdict.GOOD:
        history = "; ".join(str(outcome.case) for outcome in outcomes)
        outcomes = [
            outcome._replace(verdict=verdict, detail=f"after {history}: {reason}") for outcome in outcomes
        ]
    worst = max(outcomes, key=lambda outcome: outcome.verdict not in HARMLESS)
    closed(worst, folder)  # Keeps the folder of a run that failed.
    return outcomes


def _killed(run: Run, kill: Kill, number: int, starting: float) -> Outcome:
    """Starts the run and kills it; the kills of a run, from number 0 on, come at ever later steps."""
    before = run.newest()
    command = run.start()
    _wait_for_moment(run, command, kill, number, starting)
    sent = command.poll() is None and _send(command, kill.kind)
    ended = command.end(LIMIT)
    if not sent:
        verdict, detail = Verdict.LATE if ended.status == 0 else Verdict.LOST, describe(ended)
    elif not _group_ends(command.pid):
        verdict, detail = Verdict.NO_END, "processes of its group live on"
    else:
        verdict, detail = judge(run, kill.kind, ended, before)
    return Outcome(PART, str(kill.kind), verdict, detail)


def judge(run: Run, kind: Kind, ended: Ended, before: int) -> tuple[Verdict, str]:
    """Judges the end of a killed run whose newest checkpoint was `before` when it started."""
    verdict = verdict_of(ended, (2,) if kind.target == WORKER else (*_STATUSES[kind.signal], 0))
    newest, said = run.newest(), _CHECKPOINT.search(ended.stderr)
    if newest < before:
        return Verdict.LOST, f"its checkpoint {before} is gone\n{describe(ended)}"
    if said and not newest == int(said[1]) >= run.step():
        return (
            Verdict.LOST,
            f"its newest checkpoint is {newest}, its last step {run.step()}\n{describe(ended)}",
        )
    return verdict, "" if verdict is Verdict.GOOD else describe(ended)


def _wait_for_moment(run: Run, command: Command, kill: Kill, number: int, starting: float) -> None:
    """Returns when it is time for kill `number` of a run, or when the command has ended."""
    if kill.kind.moment == STARTING:
        time.sleep(kill.share * starting)
        return
    step = int((number + kill.share) / (_PER_RUN + 1) * recipe.STEPS)
    old = run.unfinished()
    wait(command, lambda: run.step() >= step)
    if kill.kind.moment == SAVE and wait(command, lambda: bool(run.unfinished() - old)):
        time.sleep(kill.share * _SAVE_SECONDS)


def _send(command: Command, kind: Kind) -> bool:
    """Sends the signal; returns False if the one that is to get it has ended."""
    try:
        if kind.target == GROUP:
            os.killpg(command.pid, kind.signal)
        else:
            os.kill(command.pid if kind.target == PROCESS else _worker(command), kind.signal)
    except ProcessLookupError:
        return False
    return True


def _worker(command: Command) -> int:
    """Returns the process of a data worker.

    Raises:
        ProcessLookupError: There is none.
    """
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # It has ended meanwhile.
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == command.pid and b"spawn_main" in (path / "cmdline").read_bytes():
                return int(path.name)
    raise ProcessLookupError


def _group_ends(group: int) -> bool:
    """Returns whether all processes of a group end soon."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


def reference(folder: pathlib.Path, cache: pathlib.Path) -> Reference:
    """Trains the run that nothing disturbs, twice: the first fills the cache, the second is measured."""
    run = Run(folder, cache)
    _must_succeed(Run(folder.with_name("warm_up"), cache).finish())
    began, command = time.monotonic(), run.start()
    wait(command, lambda: run.step() > 0)
    starting = time.monotonic() - began
    _must_succeed(command.end(LIMIT))
    return Reference(folder, cache, run.result(), starting)


def _must_succeed(ended: Ended) -> None:
    if ended.status != 0:
        raise RuntimeError(f"the run that nothing disturbs failed: {describe(ended)}")
