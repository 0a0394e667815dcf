"""Errors that a user can mend: the commands print them as one line and exit with status 2."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """What was found, what was expected and what to do, in one line.

    A subclass of `ValueError`, so that callers of the Python API may catch either.
    """


class CorruptImageError(UserError):
    """An image file that cannot be decoded; the message holds its path and the reason."""


def suggest(name: str, known: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" for the closest known name, or "" where none is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
