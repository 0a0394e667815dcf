"""A wrong input as data, and the rule that every command follows: one line, exit status 2, nothing changed."""

import hashlib
import pathlib
from collections.abc import Callable
from typing import NamedTuple

from experiments.campaign.outcome import Outcome, Verdict, describe, verdict_of
from experiments.campaign.run import closed
from experiments.campaign.server import Command

_LIMIT = 120.0  # Seconds that a command may take.
_LOCK = "run/lock"  # Says who used the run last, so it may change.

Build = Callable[[pathlib.Path, pathlib.Path], object]


class Case(NamedTuple):
    """A command line that has to be refused.

    Attributes:
        part: Part of the campaign, such as "wrong flags".
        name: What is wrong.
        command: Module and arguments, separated by blanks. {here} stands for a folder of the case's own, {made} for
            that of `materials.py`.
        build: Called with both folders; writes the files of the case into the first.
        status: The exit status that is right.
        writes: How the names of files begin, below {here}, that the command may write.
    """

    part: str
    name: str
    command: str
    build: Build = lambda here, made: None
    status: int = 2
    writes: tuple[str, ...] = ()


def attempt(case: Case, here: pathlib.Path, made: pathlib.Path, cache: pathlib.Path) -> Outcome:
    """Runs a case in the new folder `here`; `cache` is the folder of the compilation cache."""
    here.mkdir(parents=True)
    case.build(here, made)
    before = _contents(here, case.writes) | _contents(made)
    module, *arguments = case.command.format(here=here, made=made).split()
    if any(argument.startswith("--config=") for argument in arguments):
        arguments.append(f"--config.compilation_cache={cache}")
    ended = Command(module, arguments).end(_LIMIT)
    verdict, detail = verdict_of(ended, (case.status,)), describe(ended)
    changed = sorted(dict(before ^ (_contents(here, case.writes) | _contents(made))))
    if verdict is Verdict.GOOD and changed:
        verdict, detail = Verdict.CHANGED, f"{', '.join(changed)}\n{detail}"
    if verdict is Verdict.GOOD:
        return closed(Outcome(case.part, case.name, verdict), here)
    return Outcome(case.part, case.name, verdict, f"python -m {module} {' '.join(arguments)}\n{detail}")


def _contents(folder: pathlib.Path, ignored: tuple[str, ...] = ()) -> set[tuple[str, str]]:
    """Returns (path, hash) of every file in `folder`, but for the lock and names that begin like an `ignored` one."""
    found = set()
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != _LOCK and not name.startswith(ignored):
            found.add((str(path), hashlib.sha256(path.read_bytes()).hexdigest()))
    return found
