"""Runs one unit in a process of its own, which ends when the time is up.

The process leads a group, so that the commands and the sides that it starts end with it. A training gets SIGTERM
first, and saves a checkpoint. What the unit prints goes to a log file. A fork server imports the parts once for all
units. It never touches a device, so that each unit has the whole of it.
"""

import contextlib
import multiprocessing
import os
import pathlib
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import NamedTuple

from experiments.gpu_campaign import part as parts
from experiments.gpu_campaign.settings import Settings

GRACE = 25.0  # Seconds that a training has to save a checkpoint when the time is up.
_CONTEXT = multiprocessing.get_context("forkserver")


class Ended(NamedTuple):
    """How a unit ended: with a row, with an error (the last line of its log), or with neither because time was up."""

    row: parts.Row | None = None
    error: str = ""


def preload(modules: Sequence[str]) -> None:
    """Chooses the parts that the fork server imports; call it before the first unit."""
    _CONTEXT.set_forkserver_preload([*modules])


def measure(module: str, unit: str, settings: Settings, seconds: float) -> Ended:
    """Measures a unit for at most `seconds`, and a grace for saving a checkpoint.

    Args:
        module: Full name of the part's module.
        unit: Name of the unit.
        settings: Sizes and folders.
        seconds: Time limit, above 0.
    """
    log = settings.out / "logs" / f"{module.rpartition('.')[2]}_{unit.replace(' ', '_')}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    receiver, sender = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_measure, args=(module, unit, settings, log, sender))
    process.start()
    sender.close()  # With this end open, `poll` would not see the end of a process that was killed.
    try:
        return _received(receiver) if receiver.poll(seconds) else _stopped(process, receiver)
    finally:  # Whatever it left running ends, too.
        _signal(process, signal.SIGKILL)
        process.join()


def _stopped(process, receiver) -> Ended:
    """Asks a unit to stop; returns its row if it finished meanwhile."""
    _signal(process, signal.SIGTERM)
    process.join(GRACE)
    ended = _received(receiver) if receiver.poll() else Ended()
    return ended._replace(error="")  # Its error is only that it was stopped.


def _received(receiver) -> Ended:
    try:
        return receiver.recv()
    except EOFError:
        return Ended(error="the process was killed")


def _signal(process, number: int) -> None:
    """Sends a signal to the group of the process, which may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _measure(module: str, unit: str, settings: Settings, log: pathlib.Path, sender) -> None:
    """Measures the unit in this process and sends how it ended."""
    os.setsid()
    # This process outlives the request to stop, because it waits for the training that it started. That training does
    # not inherit a handler, as it would SIG_IGN.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    with log.open("w") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    sender.send(_attempt(module, unit, settings, log))


def _attempt(module: str, unit: str, settings: Settings, log: pathlib.Path) -> Ended:
    """Measures the unit; the last line of `log` says why if that fails."""
    try:
        return Ended(parts.load(module).units(settings)[unit]())
    except SystemExit:  # Of a command, which has said why.
        pass
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    return Ended(error=_last_line(log))


def _last_line(log: pathlib.Path) -> str:
    """Returns the last line of a log that is not empty."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it ended without a word"
