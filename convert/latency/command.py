"""Runs a command that uses a device. Errors are one line; the exit status is 3 for device errors, else 2.

Ctrl-C is one line, too, with status 130.
"""

import pathlib
import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from convert.latency.devices.registry import DeviceError
from seaformer_jax import flag_errors
from seaformer_jax.errors import UserError


def run(main: Callable[[Sequence[str]], int]) -> None:
    """Parses the flags, calls `main` with the remaining arguments and ends the process with its exit status."""
    try:
        app.run(lambda arguments: guarded(main, arguments[1:]), flags_parser=parse)
    except UserError as wrong_flag:
        sys.exit(_fail(wrong_flag))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)  # The status that shells report for Ctrl-C.


def guarded(main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    """Returns the exit status of `main`, or that of the UserError that it raises."""
    logging.set_verbosity(logging.WARNING)  # At INFO, exporters log every constant that they fold.
    try:
        return main(arguments)
    except UserError as error:
        return _fail(error)


def parse(arguments: Sequence[str]) -> list[str]:
    """Sets the flags and returns the remaining arguments.

    Raises:
        UserError: A flag is unknown or has a wrong value.
    """
    try:
        return flags.FLAGS(arguments)
    except flags.Error as error:
        raise UserError(flag_errors.explain(error, arguments)) from error


def output(path: str) -> pathlib.Path:
    """Returns the path of the results, to which ".json" and ".md" will be appended.

    Raises:
        UserError: `path` has no file name, or its folder does not exist.
    """
    out = pathlib.Path(path)
    if not out.name:
        raise UserError(f"--out is {path!r}; expected a path without suffix, e.g. results/latency")
    if not out.parent.is_dir():
        raise UserError(f"--out {out}: the folder {out.parent} does not exist; create it first")
    return out


def _fail(error: UserError) -> int:
    print(f"error: {flag_errors.one_line(error)}", file=sys.stderr)
    return 3 if isinstance(error, DeviceError) else 2
