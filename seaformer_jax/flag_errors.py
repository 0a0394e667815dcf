"""One-line messages for the errors that absl and ml_collections raise on a wrong command line."""

import os
import pathlib
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags.config_flags import ConfigFileFlagParser

from seaformer_jax import config
from seaformer_jax.errors import UserError, suggest

_OVERRIDE = re.compile(r"--?config\.([\w.]+)")
# The recipe's file, in the argument of `--config` or alone; a variant may follow.
_RECIPE = re.compile(r"(?:--?config=)?([^:]+\.py)(?=$|:)")
# Key -> its names in timm, mmseg and other trainers, as far as they resemble ours too little to be found by spelling.
_OTHER_NAMES = {
    "total_steps": "epochs num_epochs max_epochs iterations max_iters num_steps max_steps",
    "batch_size": "batch samples_per_gpu per_device_train_batch_size",
    "init_from": "pretrained initial_checkpoint load_from checkpoint_path finetune",
    "dtype": "amp fp16 bf16 precision",
    "data.root": "data_dir data_root data_path",
    "data.image_size": "img_size input_size resolution",
    "data.workers": "num_workers workers_per_gpu",
    "augment.rand_augment": "aa auto_augment",
    "augment.erasing": "reprob random_erasing",
    "model.drop_path_rate": "drop_path",
    "optim.name": "opt optimizer optimiser",
    "optim.lr": "learning_rate base_lr",
    "optim.clip_norm": "clip_grad grad_clip max_grad_norm",
    "optim.schedule.name": "sched scheduler lr_policy",
    "optim.schedule.warmup_steps": "warmup warmup_epochs warmup_iters",
}


def explain(error: Exception, arguments: Sequence[str]) -> str:
    """Returns a one-line message for an error of the flag parser.

    Args:
        error: The exception that `flags.FLAGS` raised.
        arguments: The command line that it parsed.
    """
    # The first explanation that applies. Otherwise absl's own text, or the error prefixed with the flag --config.
    return (
        _user_error(error)
        or _repeated_recipe(arguments)
        or _crashed_recipe(error, arguments)
        or _unreadable_file(error)
        or _missing_flag(error)
        or _wrong_value(error, arguments)
        or _unknown_key(arguments)
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


def _repeated_recipe(arguments: Sequence[str]) -> str:
    """Returns the message for a command line with several recipes, or ""."""
    recipes = _recipes(arguments)
    if len(recipes) < 2:
        return ""
    return (
        f"--config is given {len(recipes)} times, with {' and '.join(recipes)}; expected one recipe; change single "
        "values with --config.key=value"
    )


def _unknown_key(arguments: Sequence[str]) -> str:
    """Returns the message for an override of a key that the config does not have, or ""."""
    keys = [match[1] for argument in arguments if (match := _OVERRIDE.match(argument))]
    if not keys:
        return ""
    if not _recipes(arguments):
        return f"--config.{keys[0]} changes a recipe, and no recipe is given; put --config FILE before it"
    known = _known_keys(arguments)
    unknown = next((key for key in keys if key not in known), None)
    return f"--config.{unknown}: the config has no such value{_hint(unknown, known)}" if unknown else ""


def _hint(key: str, known: Mapping[str, Any]) -> str:
    """Returns the end of the message about the unknown `key`: what it is instead, or which key may be meant."""
    if below := _below(key, known):
        return f". It contains {', '.join(below)}."
    if tasks := [name for name, keys in _keys_of_tasks().items() if key in keys]:
        return f"; it belongs to another task's config: {', '.join(tasks)}"
    section, _, name = key.rpartition(".")
    meant = [ours for ours, others in _OTHER_NAMES.items() if name in others.split() and ours in known]
    elsewhere = [ours for ours in known if ours.endswith(f".{name}")]
    if same := (meant + elsewhere)[:1]:
        return f".{suggest(same[0], known)}"
    # Of two long keys in one section, most letters are those of the section: only the names are compared.
    siblings = _below(section, known)
    if siblings and not suggest(name, [sibling.rpartition(".")[2] for sibling in siblings]):
        return f". {section} contains {', '.join(siblings)}."
    return f".{suggest(key, known)}"


def _below(section: str, keys: Iterable[str]) -> list[str]:
    return [key for key in keys if key.startswith(f"{section}.")]


def _known_keys(arguments: Sequence[str]) -> dict[str, Any]:
    """Returns the keys of the recipe on the command line, such as "optim.lr", with their values.

    They are those of all tasks' configs if the recipe cannot be read.
    """
    try:
        return _flat(ConfigFileFlagParser("config").parse(_recipes(arguments)[0]))
    except Exception:  # A recipe is a program, which may raise anything.
        return {key: value for keys in _keys_of_tasks().values() for key, value in keys.items()}


def _keys_of_tasks() -> dict[str, dict[str, Any]]:
    """Returns task -> the keys of its default config, with their values."""
    return {task: _flat(default()) for task, default in config.TASKS.items()}


def _flat(recipe: ConfigDict) -> dict[str, Any]:
    """Returns the keys of a config, such as "optim.lr", with their values."""
    from flax.traverse_util import flatten_dict  # Here, because flax imports JAX, which devices do not have.

    return flatten_dict(recipe.to_dict(), sep=".")


def _recipes(arguments: Sequence[str]) -> list[str]:
    """Returns the values of `--config`, which are recipes with their variants."""
    neighbours = zip(arguments, [*arguments[1:], ""], strict=True)
    return [
        argument.partition("=")[2] if "=" in argument else following
        for argument, following in neighbours
        if re.match("--?config(=|$)", argument)
    ]


def _wrong_value(error: Exception, arguments: Sequence[str]) -> str:
    """Returns the message for an override whose value has the wrong type, or ""."""
    match = re.match(r"flag --config\.([\w.]+)=(.*?): ", one_line(error))
    default = _known_keys(arguments).get(match[1]) if match else None
    if default is None:
        return ""
    expected = f"a value of type {type(default).__name__}, e.g. {default!r}"
    return f"--config.{match[1]} is {match[2]!r}; expected {expected}"


def _missing_flag(error: Exception) -> str:
    """Returns the message for a required flag that was not given, or ""."""
    match = re.search(r"Flag --(\w+) must have a value other than None", str(error))
    return f"--{match[1]} is missing. {flags.FLAGS[match[1]].help}" if match else ""
