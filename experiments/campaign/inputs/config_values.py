"""Wrong values of every key of the config: on the command line, and in the config.json of a run."""

import ast
import itertools
import json
import pathlib
import random
import shutil
from collections.abc import Iterator
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from experiments.campaign import recipe
from experiments.campaign.inputs.case import Build, Case
from seaformer_jax import config as configs
from seaformer_jax.config_ranges import RANGES

ON_COMMAND_LINE, IN_FILE = "wrong values on the command line", "wrong values in config.json"
# By type of the key: first a value that cannot be parsed, then some that may be out of the key's range.
_WRONG = {
    bool: ("maybe", "2"),
    int: ("many", "-1", "-2", "0", "99999999999", "1.5"),
    float: ("fast", "nan", "-inf", "1e39", "-1", "3"),
    tuple: ("several", "('x',1.0)", "(-1,-1)", "(0,0)", "(5,1)", "('a','a')", "((1,2,3,4),)"),
}
_PER_KEY = 3
# Keys that hold a name or a pattern: wrong ones that the module which owns the names has to refuse.
_NAMES = {
    "model.name": "seaformer_tinny",
    "model.detail_input": "conw",
    "model.detail_combine": "subtract",
    "model.adaptive": "all",
    "model.adaptive_source": "k",
    "model.adaptive_expansion": "cubic",
    "model.fusion": "concatenate",
    "task.name": "clasification",
    "task.loss_divisor": "none",
    "dtype": "float16",
    "data.source": "shape",
    "data.on_corrupt": "skipp",
    "augment.interpolation": "nearest",
    "augment.rand_augment": "rand-m99-n0",
    "eval.interpolation": "nearest",
    "eval.mode": "windows",
    "optim.name": "adam",
    "optim.schedule.name": "linear",
    "optim.no_decay": "('(',)",
    "optim.lr_multipliers": "(('nothing_of_this_name',2.0),)",
    "init_from": "no/such/file.pth",
    "teacher.source": "no/such/file.pth",
}
# What they are checked against is made from the model, in a new workdir.
_IN_A_NEW_WORKDIR = ("optim.name", "optim.schedule.name", "optim.no_decay", "optim.lr_multipliers")
# What config.json may hold in place of a value. A float may be whole there, and a list is a tuple.
_IN_FILE = {
    bool: (None, 1, "True"),
    int: (None, "3", 2.5, [1], -3),
    float: (None, "0.1", [0.1], float("nan"), float("inf"), -3.0),
    str: (None, 3, ["x"], {"x": 1}),
    tuple: (None, 3, {"x": 1}, [["x"]], [-1, -1]),
}
_READERS = (
    "seaformer_jax.evaluate --workdir={here}/run",
    "seaformer_jax.predict --workdir={here}/run --images={made}/images --out={here}/out",
    "convert.to_torch --workdir={here}/run --out={here}/model.pth",
    f"seaformer_jax.train --config={recipe.RECIPE} --workdir={{here}}/run",
)


def cases(seed: int) -> list[Case]:
    """Returns some wrong values of every key, chosen at random."""
    rng, readers = random.Random(seed), itertools.cycle(_READERS)
    found = []
    for key, (task, default) in _keys().items():
        found += [_on_command_line(key, task, text) for text in _texts(key, default)]
        value = rng.choice([value for value in _IN_FILE[type(default)] if not _accepted(key, value, default)])
        found.append(_in_file(key, task, value, next(readers)))
    return found


def _keys() -> dict[str, tuple[str, Any]]:
    """Returns every key of the table of ranges, with a task that has it and its default there."""
    keys = {}
    for task in configs.TASKS:
        values = flatten_dict(configs.for_task(task).to_dict(), sep=".")
        keys |= {key: (task, values[key]) for key in values.keys() & RANGES.keys() if key not in keys}
    return {key: keys[key] for key in RANGES}


def _texts(key: str, default: Any) -> Iterator[str]:
    """Yields the wrong values of a key that are tried on the command line."""
    if key in _NAMES:
        yield _NAMES[key]
    wrong = [text for text in _WRONG.get(type(default), ()) if not _parses(key, text, default)]
    yield from wrong[:_PER_KEY]


def _parses(key: str, text: str, default: Any) -> bool:
    """Returns whether `text` is a right value of the key."""
    try:
        value = float(text) if isinstance(default, float) else ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return False
    return _accepted(key, value, default)


def _accepted(key: str, value: Any, default: Any) -> bool:
    right_type = isinstance(value, type(default)) or (isinstance(default, tuple) and isinstance(value, list))
    return right_type and RANGES[key][0](value)


def _on_command_line(key: str, task: str, text: str) -> Case:
    command = f"seaformer_jax.train --config={recipe.RECIPE}:{task} --workdir={{here}}/new"
    writes = ("new/",) if key in _IN_A_NEW_WORKDIR else ()
    return Case(ON_COMMAND_LINE, f"{key}={text}", f"{command} --config.{key}={text}", writes=writes)


def _in_file(key: str, task: str, value: Any, command: str) -> Case:
    return Case(IN_FILE, f"{key} is {json.dumps(value)}", command, _run_with(key, task, value))


def _run_with(key: str, task: str, value: Any) -> Build:
    """Returns the function that copies the run and gives it the config of `task` with a wrong value."""

    def build(here: pathlib.Path, made: pathlib.Path) -> None:
        shutil.copytree(made / "run", here / "run")
        config = flatten_dict(recipe.get_config(task).to_dict(), sep=".") | {key: value}
        (here / "run/config.json").write_text(json.dumps(unflatten_dict(config, sep=".")))

    return build
