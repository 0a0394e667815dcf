"""What absl and ml_collections raise on a wrong command line, said in one line."""

import pathlib
import re
from collections.abc import Sequence
from typing import Any

from absl import flags
from flax.traverse_util import flatten_dict

from seaformer_jax import config
from seaformer_jax.errors import UserError, suggest

_OVERRIDE = re.compile(r"--?config\.([\w.]+)")


def explain(error: Exception, arguments: Sequence[str]) -> str:
    """Returns what was wrong with the command line `arguments` that made `flags.FLAGS` raise `error`."""
    return (
        _raised_by_recipe(error)
        or _unreadable_file(error)
        or _unknown_key(error, arguments)
        or _wrong_value(error)
        or _missing_flag(error)
        or (one_line(error) if isinstance(error, flags.Error) else f"--config: {one_line(error)}")
    )


def one_line(error: BaseException) -> str:
    """Returns the message without line breaks."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(str(text).split())


def _raised_by_recipe(error: BaseException | None) -> str:
    """The message of the first UserError: ml_collections wraps it into its traceback as text."""
    message = ""
    while error is not None:
        message = one_line(error) if isinstance(error, UserError) else message
        error = error.__cause__ or error.__context__
    return message


def _unreadable_file(error: Exception) -> str:
    found = isinstance(error, OSError) and re.search(r"\[Errno \d+\] (.+): '(.+?)'", str(error))
    if not found:
        return ""
    reason, path = found[1], pathlib.Path(found[2])
    beside = [file.name for file in path.parent.glob("*.py")]
    return (
        f"--config {path}: {reason}; expected a recipe, e.g. configs/imagenet.py:tiny."
        f"{suggest(path.name, beside)}"
    )


def _unknown_key(error: Exception, arguments: Sequence[str]) -> str:
    known = _known_keys()
    keys = [found[1] for argument in arguments if (found := _OVERRIDE.match(argument))]
    if keys and not any(re.match("--?config(=|$)", argument) for argument in arguments):
        return f"--config.{keys[0]} changes a recipe, and no recipe is given; put --config FILE before it"
    for key in keys:
        if key not in known:
            below = ", ".join(name for name in known if name.startswith(f"{key}."))
            elsewhere = [name for name in known if name.endswith(f".{key}")]
            hint = f" It holds {below}." if below else suggest(elsewhere[0] if elsewhere else key, known)
            return f"--config.{key}: the config has no such value.{hint}"
        if isinstance(error, KeyError | AttributeError) and key.rpartition(".")[2] in one_line(error):
            return f"--config.{key}: the config has no such value; it is one of another task's"
    return ""


def _known_keys() -> dict[str, Any]:
    """The keys of the records of all tasks, with their defaults."""
    records = (config.segmentation(), config.default())
    return {k: v for record in records for k, v in flatten_dict(record.to_dict(), sep=".").items()}


def _wrong_value(error: Exception) -> str:
    found = re.match(r"flag --config\.([\w.]+)=(.*?): ", one_line(error))
    if not found:
        return ""
    default = _known_keys()[found[1]]
    return f"--config.{found[1]} is {found[2]!r}; expected a value of type {type(default).__name__}, as {default!r}"


def _missing_flag(error: Exception) -> str:
    found = re.search(r"Flag --(\w+) must have a value other than None", str(error))
    return f"--{found[1]} is missing. {flags.FLAGS[found[1]].help}" if found else ""
