"""One-line messages for the errors that absl and ml_collections raise on a wrong command line."""

import os
import pathlib
import re
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags
from flax.traverse_util import flatten_dict

from seaformer_jax import config
from seaformer_jax.errors import UserError, suggest

_OVERRIDE = re.compile(r"--?config\.([\w.]+)")
# The recipe's file, in the argument of `--config` or alone; a variant may follow.
_RECIPE = re.compile(r"(?:--?config=)?([^:]+\.py)(?=$|:)")


def explain(error: Exception, arguments: Sequence[str]) -> str:
    """Returns a one-line message for an error of the flag parser.

    Args:
        error: The exception that `flags.FLAGS` raised.
        arguments: The command line that it parsed.
    """
    # The first explanation that applies. Otherwise absl's own text, or the error prefixed with the flag --config.
    return (
        _user_error(error)
        or _crashed_recipe(error, arguments)
        or _unreadable_file(error)
        or _unknown_key(error, arguments)
        or _wrong_value(error)
        or _missing_flag(error)
        or (one_line(error) if isinstance(error, flags.Error) else f"--config: {one_line(error)}")
    )


def one_line(error: BaseException) -> str:
    """Returns the message of `error` without line breaks."""
    # The string of a KeyError is the repr of its message, in quotes.
    text = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(str(text).split())


def _user_error(error: BaseException) -> str:
    """Returns the message of the innermost UserError that led to `error`, or "" if there is none.

    Recipes and parsers of flags raise them. absl and ml_collections raise their own error instead; that of
    ml_collections contains the whole traceback of the UserError.
    """
    messages = [one_line(link) for link in _chain(error) if isinstance(link, UserError)]
    return messages[-1] if messages else ""


def _crashed_recipe(error: BaseException, arguments: Sequence[str]) -> str:
    """Returns the message for an error that the code of the recipe raised, or ""."""
    recipes = {os.path.abspath(match[1]) for argument in arguments if (match := _RECIPE.match(argument))}
    # The outermost error wins, because a recipe may replace an error by one that says more.
    for link in _chain(error):
        frames = traceback.extract_tb(link.__traceback__)
        own = [frame for frame in frames if os.path.abspath(frame.filename) in recipes]
        if own:
            reason = f"{type(link).__name__}: {one_line(link)}"
            return f"--config {own[-1].filename}, line {own[-1].lineno}: {reason}; correct the recipe"
    return ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yields `error` and the errors that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _unreadable_file(error: Exception) -> str:
    """Returns the message for a recipe that cannot be opened, or ""."""
    match = isinstance(error, OSError) and re.search(r"\[Errno \d+\] (.+): '(.+?)'", str(error))
    if not match:
        return ""
    reason, path = match[1], pathlib.Path(match[2])
    neighbours = [file.name for file in path.parent.glob("*.py")]
    return (
        f"--config {path}: {reason}; expected a recipe, e.g. configs/imagenet.py:tiny."
        f"{suggest(path.name, neighbours)}"
    )


def _unknown_key(error: Exception, arguments: Sequence[str]) -> str:
    """Returns the message for an override of a key that the config does not have, or ""."""
    known = _known_keys()
    keys = [match[1] for argument in arguments if (match := _OVERRIDE.match(argument))]
    # 1. Overrides without a recipe that they could change.
    if keys and not any(re.match("--?config(=|$)", argument) for argument in arguments):
        return f"--config.{keys[0]} changes a recipe, and no recipe is given; put --config FILE before it"
    for key in keys:
        # 2. No task has the key: it is a section, or the right name in the wrong section, or misspelt.
        if key not in known:
            below = ", ".join(name for name in known if name.startswith(f"{key}."))
            elsewhere = [name for name in known if name.endswith(f".{key}")]
            hint = f" It contains {below}." if below else suggest(elsewhere[0] if elsewhere else key, known)
            return f"--config.{key}: the config has no such value.{hint}"
        # 3. Another task has the key, and ml_collections did not find it in this config.
        if isinstance(error, KeyError | AttributeError) and key.rpartition(".")[2] in one_line(error):
            return f"--config.{key}: the config has no such value; it belongs to another task's config"
    return ""


def _known_keys() -> dict[str, Any]:
    """Returns the keys of all tasks' configs, such as "optim.lr", with their defaults."""
    defaults = (config.segmentation(), config.default())
    return {k: v for default in defaults for k, v in flatten_dict(default.to_dict(), sep=".").items()}


def _wrong_value(error: Exception) -> str:
    """Returns the message for an override whose value has the wrong type, or ""."""
    match = re.match(r"flag --config\.([\w.]+)=(.*?): ", one_line(error))
    if not match:
        return ""
    key, value = match.groups()
    default = _known_keys()[key]
    return f"--config.{key} is {value!r}; expected a value of type {type(default).__name__}, e.g. {default!r}"


def _missing_flag(error: Exception) -> str:
    """Returns the message for a required flag that was not given, or ""."""
    match = re.search(r"Flag --(\w+) must have a value other than None", str(error))
    return f"--{match[1]} is missing. {flags.FLAGS[match[1]].help}" if match else ""
