"""Errors that a user can fix: the commands print them as one line."""

import difflib
import errno
import os
from collections.abc import Iterable


class UserError(ValueError):
    """An error whose message says in one line what was found, what was expected and what to do.

    It is a subclass of `ValueError`, so callers of the Python API can catch either.

    Attributes:
        exit_status: Exit status of a command that it ends.
    """

    exit_status = 2


class DivergedError(UserError):
    """Raised when a loss, a gradient or a parameter is not finite; the run cannot go on with its config."""


class CorruptImageError(UserError):
    """Raised for an image file that cannot be decoded; the message contains its path and the reason."""


def summary(error: Exception) -> str:
    """Returns the kind of an error and the first line of its message."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


def reason(error: OSError) -> str:
    """Returns what the file system said, e.g. `No such file or directory`.

    The packages for buckets raise the same classes, but with a text of their own and without a number.
    """
    numbers = {FileNotFoundError: errno.ENOENT, IsADirectoryError: errno.EISDIR}
    number = numbers.get(type(error))
    return error.strerror or (os.strerror(number) if number else summary(error))


def suggest(name: str, known: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" with the known name `x` closest to `name`, or "" if none is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
