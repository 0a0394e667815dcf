"""Runs a command: parses the flags, checks the config and reports errors as one line."""

import errno
import logging as python_logging
import os
import pathlib
import re
import signal
import sys
import traceback
import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags, logging
from etils import epath
from ml_collections import ConfigDict, config_flags

from seaformer_jax import flag_errors, paths
from seaformer_jax.config_check import check
from seaformer_jax.errors import UserError, reason

_INTERRUPTED = 130  # The exit status that shells report for Ctrl-C.
# What the disk may refuse at any write; in every command that is an error of its surroundings, not of its code.
_REFUSED_WRITES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM)
# The folder that holds the packages seaformer_jax and configs.
_INSTALLED = pathlib.Path(__file__).parent.parent
# Packages whose warnings only say what their errors say, too.
_QUIET = ("orbax", "asyncio", "gcsfs", "google")
# `configs/NAME.py`, alone or behind `--config=`; a variant may follow.
_RECIPE = re.compile(r"^(--?config=|)(configs/\w+\.py)(?=$|:)")
# `--no-NAME`; absl itself only knows `--noNAME`.
_NEGATION = re.compile(r"^(--?)no-(?=\w)")

# `--help` of a command lists the flags of its own module only. So what is defined here belongs to the caller.
flags.disclaim_key_flags()


def run(main: Callable[..., int | None], operands: str = "") -> None:
    """Parses the flags, runs `main` and ends the process with its exit status.

    Args:
        main: The command. It takes the arguments that are no flags, if `operands` names them, else nothing.
        operands: Name of these arguments, such as "BUNDLE"; "" if there are none.

    A `UserError` is printed as one line on stderr, without a traceback, and ends the process with its exit status;
    Ctrl-C does so with status 130.
    """

    def guarded(arguments: Sequence[str]) -> int | None:
        if len(arguments) > 1 and not operands:
            raise UserError(f"unexpected argument {arguments[1]!r}; options are written --name=value")
        _log_plainly()
        return main(arguments[1:]) if operands else main()

    sys.unraisablehook = _print_unraisable
    try:
        app.run(guarded, flags_parser=_parse)
    except (Exception, KeyboardInterrupt) as error:
        lines, status = _ending(error)
        if processes := _several():
            processes.end_all(lines, status)
        else:
            print(lines, file=sys.stderr)
        sys.exit(status)


def _print_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """Prints an exception that no code can catch, as Python does, except for transfers that nobody waits for.

    When one array of a checkpoint cannot be read or written, orbax raises that error and closes its event loop. Each
    of tensorstore's threads that works on another array then fails to hand over its result, which is of no use any
    more.
    """
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _ending(error: BaseException) -> tuple[str, int]:
    """Returns what to print about an error that ends the command, and the exit status."""
    if isinstance(error, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Another Ctrl-C would interrupt Python's own clean-up.
        return "interrupted; the same command starts again, and resumes a training run", _INTERRUPTED
    if isinstance(error, UserError):
        return f"error: {flag_errors.one_line(error)}", error.exit_status
    if isinstance(error, OSError) and error.errno in _REFUSED_WRITES:
        place = error.filename or "a file could not be written"
        advice = "free space or make it writable, then run the same command again"
        return f"error: {place}: {reason(error)}; {advice}", UserError.exit_status
    if trouble := paths.failure(error):
        return f"error: {trouble}, then run the same command again", UserError.exit_status
    lost = processes.lost_connection(error) if (processes := _several()) else None
    return lost or ("".join(traceback.format_exception(error)).rstrip(), 1)


def _several() -> types.ModuleType | None:
    """Returns the module of runs of several processes; None in a command that does not import it, and so no JAX."""
    return sys.modules.get("seaformer_jax.processes")


def define_config(required: bool = True) -> flags.FlagHolder:
    """Defines the flag `--config FILE[:VARIANT]` and its overrides `--config.key=value`."""
    holder = config_flags.DEFINE_config_file(
        "config",
        None,
        "Recipe (config file and variant), e.g. configs/imagenet.py:tiny.",
        allow_overwrite=False,  # Of two recipes, the first would be dropped without a word.
    )
    if required:
        flags.mark_flag_as_required("config")
    return holder


def define_path(name: str, help: str, required: bool = False, default: str | None = None) -> flags.FlagHolder:
    """Defines the flag `--NAME=PATH`; its value is a string in which a leading `~` is expanded, or `default`.

    An empty path is an error: it comes from a shell variable that is not set, and would mean the working folder.

    Args:
        name: Name of the flag.
        help: Help text of the flag.
        required: Whether the flag has to be given.
        default: Value of the flag if it is not given.
    """
    return flags.DEFINE(_PathParser(name), name, default, help, required=required)


class ChoiceOfWeights:
    """Defines the flags `--checkpoint` and `--ema`, which choose among the weights of a run."""

    def __init__(self):
        self._checkpoint = flags.DEFINE_string(
            "checkpoint",
            None,
            "Checkpoint of the run: last (the default), best (by the validation metric) or a step.",
        )
        self._ema = flags.DEFINE_bool(
            "ema",
            None,
            "Averaged weights, or with --no-ema the last ones (default: eval.use_ema of the run).",
        )

    def arguments(self) -> dict[str, Any]:
        """Returns the keyword arguments of `training.trained.load`."""
        checkpoint = self._checkpoint.value
        return {"checkpoint": "last" if checkpoint is None else checkpoint, "use_ema": self._ema.value}

    def load(self, workdir: str | None, weights: str | None) -> "trained.Trained":  # noqa: F821
        """Loads the run in `workdir`, or the weights that ship with the package under the name `weights`.

        Raises:
            UserError: Not exactly one of the two is given, or it cannot be loaded.
        """
        from seaformer_jax.training import trained  # Here, because not every command needs JAX.

        if bool(workdir) == bool(weights):
            raise UserError("give either --workdir, the folder of a run, or --weights, e.g. --weights camvid")
        if weights:
            self.refuse()
            return trained.load_pretrained(weights)
        return trained.load(existing("workdir", workdir), **self.arguments())

    def refuse(self) -> None:
        """Raises UserError if one of the flags is given, because the weights are not those of a run."""
        if self._checkpoint.value is not None or self._ema.value is not None:
            raise UserError("--checkpoint and --ema choose among the weights of a --workdir; leave them out")


class _PathParser(flags.ArgumentParser):
    """Parses a path. The shell expands `~` only at the start of a word, so not in `--workdir=~/runs`."""

    def __init__(self, name: str):
        self._name = name

    def parse(self, argument: str) -> str:
        if not argument:
            raise UserError(f"--{self._name} is empty; expected a path. Is a shell variable unset?")
        return os.path.expanduser(argument)


def setup_jax(config: ConfigDict) -> None:
    """Turns on JAX's persistent compilation cache if `config.compilation_cache` names a folder."""
    import jax  # Here, because devices run commands, too, and have no JAX.

    if config.compilation_cache:
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser(config.compilation_cache))
        # Caches every program that takes at least this many seconds to compile.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def existing(flag: str, path: str) -> epath.Path:
    """Returns `path` as a `Path`.

    Args:
        flag: Name of the flag that holds the path, for the error message.
        path: File or folder.
    Raises:
        UserError: `path` does not exist.
    """
    found = paths.of(path)
    if not found.exists():
        raise UserError(f"--{flag} {path} does not exist")
    return found


def output_folder(flag: str, path: str) -> epath.Path:
    """Returns the folder `path` and creates it if necessary.

    Args:
        flag: Name of the flag that holds the path, for the error message.
        path: Folder.
    Raises:
        UserError: The folder cannot be created.
    """
    folder = paths.of(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to --{flag} {path}: {reason(error)}; choose another folder") from error
    return folder


def _parse(arguments: Sequence[str]) -> list[str]:
    arguments = [_RECIPE.sub(_installed_recipe, argument) for argument in arguments]
    arguments = [_NEGATION.sub(r"\1no", argument) for argument in arguments]
    try:
        rest = flags.FLAGS(arguments)
        if "config" in flags.FLAGS and flags.FLAGS.config is not None:
            check(flags.FLAGS.config)
        return rest
    # A recipe is a program, which may raise anything, and so do ml_collections' parsers on broken keys and values.
    except Exception as error:
        raise UserError(flag_errors.explain(error, arguments)) from error


def _installed_recipe(match: re.Match) -> str:
    """Returns the recipe that was installed with the package, unless the working folder has a file of that path."""
    flag, path = match.groups()
    installed = _INSTALLED / path
    return f"{flag}{installed if installed.exists() and not pathlib.Path(path).exists() else path}"


def _log_plainly() -> None:
    """Logs the bare messages to stderr, without absl's prefix, because people read them."""
    logging.set_verbosity(logging.INFO)
    logging.get_absl_handler().setFormatter(python_logging.Formatter("%(message)s"))
    # JAX and Orbax also log through absl, about missing backends and about every file written. So the filter passes
    # all messages of this project, but only warnings and errors of other packages.
    ours = tuple(f"{_INSTALLED / package}{os.sep}" for package in ("seaformer_jax", "convert"))

    def worth_reading(record: python_logging.LogRecord) -> bool:
        # Orbax warns about every checkpoint without validation metrics, and logs the traceback of each error that it
        # raises afterwards, as does gcsfs. If it writes many arrays at once, it raises the first error, and asyncio
        # logs the others.
        quiet = any(f"{os.sep}{package}{os.sep}" in record.pathname for package in _QUIET)
        return record.pathname.startswith(ours) or (record.levelno >= python_logging.WARNING and not quiet)

    logging.get_absl_handler().addFilter(worth_reading)
    # After an error orbax does not even start to write the other arrays, and Python warns about each of them.
    warnings.filterwarnings("ignore", "coroutine '.*' was never awaited", RuntimeWarning)
