"""Runs of which one file is damaged, and every command that reads it."""

import functools
import pathlib
import shutil

from experiments.campaign import recipe
from experiments.campaign.inputs.case import Build, Case

PART = "damaged files of a run"

_TRAIN = f"seaformer_jax.train --config={recipe.RECIPE} --workdir={{here}}/run"
_READERS = {
    "evaluate": "seaformer_jax.evaluate --workdir={here}/run --out={here}/out",
    "predict": "seaformer_jax.predict --workdir={here}/run --images={made}/images --out={here}/out",
    "to_torch": "convert.to_torch --workdir={here}/run --out={here}/model.pth",
}
# Content of a JSON file in place of the right one; None is a folder.
_JSON = {
    "empty": b"",
    "cut short": b'{"seed": 0, ',
    "a list of numbers": b"[1, 2]",
    "a number": b"3",
    "null": b"null",
    "not UTF-8": b"\xff\xfe\x00",
    "a folder": None,
}
_CONFIG = _JSON | {
    "without a task": b'{"seed": 0}',
    "with an unknown task": b'{"task": {"name": "detection"}}',
    "with a section that is a number": b'{"task": {"name": "classification"}, "optim": 3}',
    "with an unknown key": b'{"task": {"name": "classification"}, "sede": 3}',
}
_LABELS = _JSON | {
    "an empty list": b"[]",
    "one class": b'["a"]',
    "names of fewer classes": b'["a", "b", "c"]',
    "an object": b'{"a": 0}',
}
_METRICS = {
    "a folder": None,
    "not UTF-8": b"\xff\xfe\n\xff\n",
    "a list in the first row": b"[1]\n[2]\n",
    "a row without a step": b'{"loss": 1}\n{"step": 2}\n',
    "a row that is cut short before others": b'{"step": 1, "lo\n{"step": 2}\n',
}


def cases() -> list[Case]:
    """Returns every damage with every command that has to notice it."""
    found = []
    for name, content in _CONFIG.items():
        for command, line in (_READERS | {"train": _TRAIN}).items():
            found.append(Case(PART, f"{command}, config.json is {name}", line, _file("config.json", content)))
    for name, content in _LABELS.items():
        for command, line in _READERS.items():
            found.append(Case(PART, f"{command}, labels.json is {name}", line, _file("labels.json", content)))
    for name, content in _METRICS.items():
        # A complete run reads metrics.jsonl no more, so the damage is in one that goes on.
        found.append(Case(PART, f"train, metrics.jsonl is {name}", _TRAIN, _metrics(content)))
    for name, damage in _CHECKPOINTS.items():
        for command, line in (_READERS | {"train": _TRAIN}).items():
            found.append(Case(PART, f"{command}, {name}", line, _checkpoints(damage)))
    return found


def _file(name: str, content: bytes | None) -> Build:
    def build(here: pathlib.Path, made: pathlib.Path) -> None:
        shutil.copytree(made / "run", here / "run")
        _replace(here / "run" / name, content)

    return build


def _metrics(content: bytes | None) -> Build:
    def build(here: pathlib.Path, made: pathlib.Path) -> None:
        shutil.copytree(made / "run", here / "run")
        # The last step: what is left is the checkpoint before it.
        shutil.rmtree(here / "run/checkpoints" / str(recipe.STEPS))
        _replace(here / "run/metrics.jsonl", content)

    return build


def _checkpoints(damage) -> Build:
    """Returns the function that copies the run and damages all of its checkpoints."""

    def build(here: pathlib.Path, made: pathlib.Path) -> None:
        shutil.copytree(made / "run", here / "run")
        damage(here / "run/checkpoints")

    return build


def _replace(path: pathlib.Path, content: bytes | None) -> None:
    path.unlink()
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)


def _each_file(checkpoints: pathlib.Path, change, pattern: str = "*/state/**/*") -> None:
    for path in sorted(checkpoints.glob(pattern)):
        if path.is_file():
            path.write_bytes(change(path.read_bytes()))


def _remove(checkpoints: pathlib.Path, pattern: str) -> None:
    for path in list(checkpoints.glob(pattern)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _replace_folder(checkpoints: pathlib.Path) -> None:
    shutil.rmtree(checkpoints)
    checkpoints.write_bytes(b"checkpoints")


_CHECKPOINTS = {
    "all checkpoints cut in half": functools.partial(_each_file, change=lambda data: data[: len(data) // 2]),
    "all checkpoints emptied": functools.partial(_each_file, change=lambda data: b""),
    "all checkpoints inverted": functools.partial(
        _each_file, change=lambda data: bytes(255 - value for value in data)
    ),
    "all checkpoints without states": functools.partial(_remove, pattern="*/state"),
    "all checkpoints without arrays": functools.partial(_remove, pattern="*/state/d"),
    "all checkpoints without metadata": functools.partial(_remove, pattern="*/state/_METADATA"),
    "all checkpoints with broken checksums": functools.partial(
        _each_file, change=lambda data: b"{}", pattern="*/checksums/metadata"
    ),
    "all checkpoints gone": functools.partial(_remove, pattern="*"),
    "checkpoints that are a file": _replace_folder,
}
