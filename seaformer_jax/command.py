"""Running a command: flags, the config record, and errors as one line with exit status 2."""

import logging as python_logging
import os
import pathlib
import sys
from collections.abc import Callable, Sequence

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from seaformer_jax import flag_errors
from seaformer_jax.config_check import check
from seaformer_jax.errors import UserError

_EXIT_USER_ERROR = 2


def run(main: Callable[[], int | None]) -> None:
    """Parses the flags and runs `main`; ends the process with its status.

    A `UserError` is one line on stderr and status 2, without a traceback.
    """

    def guarded(arguments: Sequence[str]) -> int | None:
        if len(arguments) > 1:
            raise UserError(f"unexpected argument {arguments[1]!r}; options are written --name=value")
        _log_plainly()
        return main()

    try:
        app.run(lambda arguments: _reporting_errors(lambda: guarded(arguments)), flags_parser=_parse)
    except UserError as error:
        sys.exit(_fail(error))


def define_config(required: bool = True) -> flags.FlagHolder:
    """Defines `--config FILE[:VARIANT]` and the `--config.key=value` overrides."""
    holder = config_flags.DEFINE_config_file("config", None, "The recipe, e.g. configs/imagenet.py:tiny.")
    if required:
        flags.mark_flag_as_required("config")
    return holder


def setup_jax(config: ConfigDict) -> None:
    """Turns on the persistent compilation cache (`config.compilation_cache`)."""
    if config.compilation_cache:
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser(config.compilation_cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def existing(flag: str, path: str) -> pathlib.Path:
    """Returns `path`; UserError naming the flag where there is nothing."""
    if not pathlib.Path(path).exists():
        raise UserError(f"--{flag} {path} does not exist")
    return pathlib.Path(path)


def output_folder(flag: str, path: str) -> pathlib.Path:
    """Returns the folder `path`, made where it is not there; UserError naming the flag where it cannot be."""
    folder = pathlib.Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot write to --{flag} {path}: {error.strerror}; choose another folder"
        ) from error
    return folder


def _parse(arguments: Sequence[str]) -> list[str]:
    try:
        rest = flags.FLAGS(arguments)
        if "config" in flags.FLAGS and flags.FLAGS.config is not None:
            check(flags.FLAGS.config)
        return rest
    # ml_collections lets through whatever a file, a key or a value that it cannot use leads to.
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError, SyntaxError) as error:
        raise UserError(flag_errors.explain(error, arguments)) from error


def _reporting_errors(main: Callable[[], int | None]) -> int | None:
    try:
        return main()
    except UserError as error:
        return _fail(error)


def _fail(error: UserError) -> int:
    print(f"error: {flag_errors.one_line(error)}", file=sys.stderr)
    return _EXIT_USER_ERROR


def _log_plainly() -> None:
    """The message alone, on stderr: the lines of a run are for people."""
    logging.set_verbosity(logging.INFO)
    logging.get_absl_handler().setFormatter(python_logging.Formatter("%(message)s"))
    # JAX and Orbax talk through absl's logger too: about backends that are not there, about every file written.
    root = pathlib.Path(__file__).parent.parent
    ours = tuple(f"{root / room}{os.sep}" for room in ("seaformer_jax", "convert"))

    def worth_reading(record: python_logging.LogRecord) -> bool:
        # Orbax warns of every checkpoint without validation metrics.
        least = python_logging.ERROR if "orbax" in record.pathname else python_logging.WARNING
        return record.levelno >= least or record.pathname.startswith(ours)

    logging.get_absl_handler().addFilter(worth_reading)
