"""Data sets in COCO's format that are missing, broken, or not what the config says."""

import functools
import json
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

from experiments.campaign import recipe
from experiments.campaign.inputs.case import Build, Case
from experiments.campaign.inputs.materials import BOXED, SHORT

PART = "wrong boxes"

_TRAIN = (
    f"seaformer_jax.train --config={recipe.RECIPE}:detection --workdir={{here}}/new "
    f"{BOXED.replace('{made}', '{here}')} {SHORT}"
)
_NEW = ("new/",)  # The first batches are read when the workdir exists.
_FILE = "boxed/annotations/instances_train.json"
Record = dict[str, Any]


def cases() -> list[Case]:
    """Returns the wrong data sets, each with the command that reads it."""
    found = [Case(PART, name, _TRAIN, _record(change), writes=_NEW) for name, change in _RECORDS.items()]
    found += [Case(PART, name, _TRAIN, _changed(change), writes=_NEW) for name, change in _FOLDERS.items()]
    found += [
        Case(PART, name, f"{_TRAIN} {words}", _changed(lambda here: None), writes=_NEW)
        for name, words in _WORDS.items()
    ]
    return found


def _changed(change: Callable[[pathlib.Path], object]) -> Build:
    """Returns the function that copies the data set and changes it."""

    def build(here: pathlib.Path, made: pathlib.Path) -> None:
        shutil.copytree(made / "boxed", here / "boxed")
        change(here)

    return build


def _record(change: Callable[[Record], object]) -> Build:
    """Returns the function that copies the data set and changes what the training split's file holds."""

    def rewrite(here: pathlib.Path) -> None:
        record = json.loads((here / _FILE).read_text())
        change(record)
        (here / _FILE).write_text(json.dumps(record))

    return _changed(rewrite)


def _set(*path: str | int, value: Any) -> Callable[[Record], None]:
    """Returns the function that replaces the entry at `path` of a record."""

    def change(record: Record) -> None:
        for key in path[:-1]:
            record = record[key]
        record[path[-1]] = value

    return change


def _without(*path: str | int) -> Callable[[Record], None]:
    """Returns the function that removes the entry at `path` of a record."""

    def change(record: Record) -> None:
        for key in path[:-1]:
            record = record[key]
        del record[path[-1]]

    return change


def _flat(record: Record) -> None:
    for annotation in record["annotations"]:
        annotation["bbox"][2] = 0


def _many(record: Record) -> None:
    record["annotations"] += [record["annotations"][0] | {"id": 1000 + i} for i in range(300)]


_BOX = ("annotations", 0, "bbox")
_RECORDS = {
    **{f"a file without {key}": _without(key) for key in ("images", "categories", "annotations")},
    **{f"a file with no {key}": _set(key, value=[]) for key in ("images", "categories", "annotations")},
    **{
        f"{key} that are no list": _set(key, value={"0": 1})
        for key in ("images", "categories", "annotations")
    },
    "boxes without width only": _flat,
    "a box of three numbers": _set(*_BOX, value=[1, 1, 5]),
    "a box with NaN": _set(*_BOX, value=[1, 1, float("nan"), 5]),
    "a box of texts": _set(*_BOX, value=["1", "1", "5", "5"]),
    "an annotation without a box": _without(*_BOX),
    "an annotation without an image": _without("annotations", 0, "image_id"),
    "an unknown image": _set("annotations", 0, "image_id", value=999),
    "an unknown category": _set("annotations", 0, "category_id", value=999),
    "two images of one id": _set("images", 1, "id", value=0),
    "two categories of one id": _set("categories", 1, "id", value=1),
    "a category without a name": _without("categories", 0, "name"),
    "an image without a file name": _without("images", 0, "file_name"),
    "an image that is missing": _set("images", 0, "file_name", value="nowhere.png"),
    "an image outside its folder": _set("images", 0, "file_name", value="../val/0.png"),
    "an image of another size": _set("images", 0, "width", value=999),
    "an image of no size": _set("images", 0, "width", value=0),
    "more boxes than the limit": _many,
    "other classes than validation": _set("categories", 0, "name", value="other"),
    "fewer classes than validation": lambda record: record.update(
        categories=record["categories"][:1],
        annotations=[a for a in record["annotations"] if a["category_id"] == 1],
    ),
}


def _write(here: pathlib.Path, name: str, content: str) -> None:
    (here / name).write_text(content)


_FOLDERS = {
    "no folder of the boxes": lambda here: shutil.rmtree(here / "boxed"),
    "no file of the split": lambda here: (here / _FILE).unlink(),
    "no pictures of the split": lambda here: shutil.rmtree(here / "boxed/images/train"),
    "a file that is no JSON": functools.partial(_write, name=_FILE, content="<html>404</html>"),
    "an empty file": functools.partial(_write, name=_FILE, content=""),
    "a list for a file": functools.partial(_write, name=_FILE, content="[]"),
    "an empty picture among the boxes": functools.partial(
        _write, name="boxed/images/train/0.png", content=""
    ),
}
_WORDS = {
    "a bucket that holds no image": "--config.data.buckets=((16,16),)",
    "a bucket that is no multiple of the strides": "--config.data.buckets=((33,40),)",
    "weights of other classes": "--config.init_from={made}/model.pth",
}
