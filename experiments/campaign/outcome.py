"""What the campaign finds out in each of its cases, and how a command has to end."""

import enum
import re
from collections.abc import Collection
from typing import NamedTuple

from experiments.campaign.server import Ended

# How libraries in C++ log an error, e.g. `E1121 17:55:18.123456 ...`: not meant for people.
_FLOOD = re.compile(r"^[EF]\d{4} \d\d:\d\d:", re.MULTILINE)


class Verdict(enum.StrEnum):
    """What came of a case; those of `HARMLESS` are no failures."""

    GOOD = "good"
    LATE = "too late"  # The command had ended before it could be disturbed.
    NOT_RUN = "not run"
    LOST = "lost"  # The run cannot go on, or its result is another one.
    TRACEBACK = "traceback"
    NOT_ONE_LINE = "not one line"
    STATUS = "wrong status"
    ACCEPTED = "accepted"  # A wrong input had no consequence.
    CHANGED = "files changed"
    NO_END = "no end"


HARMLESS = (Verdict.GOOD, Verdict.LATE, Verdict.NOT_RUN)


class Outcome(NamedTuple):
    """The result of one case.

    Attributes:
        part: Part of the campaign, such as "kills".
        case: What was done.
        verdict: What came of it.
        detail: For a failure: the command and what it said; for a case that was not run: the reason.
    """

    part: str
    case: str
    verdict: Verdict
    detail: str = ""


def verdict_of(ended: Ended, expected: Collection[int]) -> Verdict:
    """Judges the end of a command.

    Args:
        ended: How it ended.
        expected: The exit statuses that are right. With status 1, 2 or 3 the last line on stderr, and no other, has
            to begin with "error: ".
    """
    if "Traceback (most recent call last)" in ended.stderr:
        return Verdict.TRACEBACK
    if ended.status is None:
        return Verdict.NO_END
    if ended.status not in expected:
        return Verdict.ACCEPTED if ended.status == 0 else Verdict.STATUS
    if _FLOOD.search(ended.stderr) or (ended.status in (1, 2, 3) and not ends_with_one_error(ended.stderr)):
        return Verdict.NOT_ONE_LINE
    return Verdict.GOOD


def ends_with_one_error(stderr: str) -> bool:
    """Returns whether the last line, and no other, begins with "error: "."""
    lines = stderr.splitlines()
    return bool(lines) and [line for line in lines if line.startswith("error: ")] == lines[-1:]


def describe(ended: Ended, lines: int = 12) -> str:
    """Returns the exit status and the last lines that the command wrote to stderr."""
    return "\n".join([f"status {ended.status}", *ended.stderr.splitlines()[-lines:]])
