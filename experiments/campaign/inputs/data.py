"""Data sets and pictures that are missing, broken, or not what the config says."""

import functools
import pathlib
import shutil
import struct
import zlib

import numpy as np
from PIL import Image

from experiments.campaign import recipe
from experiments.campaign.inputs.case import Build, Case
from experiments.campaign.inputs.materials import PAIRS, SIDE

PART = "wrong data"

_NEW = ("new/",)  # The first batches are read when the workdir exists.
_TRAIN = f"seaformer_jax.train --config={recipe.RECIPE} --workdir={{here}}/new"
_FOLDER = f"{_TRAIN} --config.data.source=folder --config.data.root={{here}}/classes"
_PAIRS = f"{_TRAIN.replace('.py', '.py:segmentation')} {PAIRS.replace('{made}', '{here}')}"
_PREDICT = "seaformer_jax.predict --workdir={made}/run --images={here}/x.png --out={here}/out"
_EVALUATE = (
    f"seaformer_jax.evaluate --weights={{made}}/model.pth --config={recipe.RECIPE} --out={{here}}/out "
    "--config.data.source=folder --config.data.root={here}/classes"
)


def cases() -> list[Case]:
    """Returns the wrong data, each with the command that reads it."""
    found = []
    for name, content in _PICTURES.items():
        found.append(Case(PART, f"predict, {name}", _PREDICT, _picture(content)))
        found.append(
            Case(PART, f"train, {name}", _FOLDER, _first("classes/train/a/0.png", content), writes=_NEW)
        )
        found.append(
            Case(
                PART,
                f"train, {name}, segmentation",
                _PAIRS,
                _first("scenes/images/train/0.png", content),
                writes=_NEW,
            )
        )
        found.append(
            Case(
                PART,
                f"train, {name} as mask",
                _PAIRS,
                _first("scenes/annotations/train/0.png", content),
                writes=_NEW,
            )
        )
    found += [Case(PART, name, _FOLDER, _changed(change), writes=_NEW) for name, change in _FOLDERS.items()]
    found += [Case(PART, name, _PAIRS, _changed(change), writes=_NEW) for name, change in _SCENES.items()]
    found += [Case(PART, name, f"{_TRAIN} {words}") for name, words in _SOURCES.items()]
    found.append(Case(PART, "evaluate, data of other classes", _EVALUATE, _changed(lambda here: None)))
    return found


def _changed(change) -> Build:
    """Returns the function that copies both data sets and changes one."""

    def build(here: pathlib.Path, made: pathlib.Path) -> None:
        for name in ("classes", "scenes"):
            shutil.copytree(made / name, here / name)
        change(here)

    return build


def _picture(content) -> Build:
    return lambda here, made: _write(here / "x.png", content)


def _first(name: str, content) -> Build:
    """Returns the function that copies the data sets and replaces one file."""

    def change(here: pathlib.Path) -> None:
        (here / name).unlink()
        _write(here / name, content)

    return _changed(change)


def _write(path: pathlib.Path, content: bytes | None) -> None:
    if content is None:
        path.symlink_to("nowhere")
    else:
        path.write_bytes(content)


def _png(width: int, height: int) -> bytes:
    """Returns a PNG file that says that it is this large, and has no pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


# Content of a file with the name of a picture; None is a link to nowhere.
_PICTURES = {
    "an empty picture": b"",
    "a text as picture": b"<html>404: not found</html>",
    "a picture without pixels": _png(SIDE, SIDE),
    "a picture of 10^10 pixels": _png(100_000, 100_000),
    "a picture of no pixels": _png(0, 0),
    "a link to nowhere": None,
}


def _save(pixels: np.ndarray, path: pathlib.Path) -> None:
    Image.fromarray(pixels).save(path)


def _each_mask(here: pathlib.Path, change) -> None:
    for path in (here / "scenes/annotations").rglob("*.png"):
        _save(change(np.asarray(Image.open(path))), path)


def _remove(here: pathlib.Path, name: str) -> None:
    path = here / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _empty(here: pathlib.Path, name: str) -> None:
    _remove(here, name)
    (here / name).mkdir()


def _replaced_by_file(here: pathlib.Path, name: str) -> None:
    _remove(here, name)
    (here / name).write_text("")


_FOLDERS = {
    "no folder of the data": functools.partial(_remove, name="classes"),
    "the data is a file": functools.partial(_replaced_by_file, name="classes"),
    "no folder of the split": functools.partial(_remove, name="classes/train"),
    "the split is a file": functools.partial(_replaced_by_file, name="classes/train"),
    "an empty split": functools.partial(_empty, name="classes/train"),
    "no validation split": functools.partial(_remove, name="classes/val"),
    "an empty validation split": functools.partial(_empty, name="classes/val"),
    "a class without pictures": functools.partial(_empty, name="classes/train/a"),
    "one class only": functools.partial(_remove, name="classes/train/a"),
    "a class that validation lacks": functools.partial(_remove, name="classes/val/a"),
}
_SCENES = {
    "no folder of masks": functools.partial(_remove, name="scenes/annotations"),
    "no masks of the split": functools.partial(_remove, name="scenes/annotations/train"),
    "a missing mask": functools.partial(_remove, name="scenes/annotations/train/3.png"),
    "no pictures of the split": functools.partial(_empty, name="scenes/images/train"),
    "masks of another size": functools.partial(_each_mask, change=lambda mask: mask[1:]),
    "masks of unknown classes": functools.partial(_each_mask, change=lambda mask: mask + np.uint8(7)),
    "masks with colours": functools.partial(_each_mask, change=lambda mask: np.stack([mask] * 3, -1)),
    "masks of 16 bits beyond all classes": functools.partial(
        _each_mask, change=lambda mask: mask.astype(np.uint16) + 256
    ),
    "masks without a labelled pixel": functools.partial(
        _each_mask, change=lambda mask: np.full_like(mask, 255)
    ),
}
_SOURCES = {
    "folder without a root": "--config.data.source=folder",
    "tfds without its data": "--config.data.source=tfds --config.data.root={here}",
    "tfds of an unknown name": "--config.data.source=tfds --config.data.name=imagenet2112 --config.data.root={here}",
    "folder of an unknown split": "--config.data.source=folder --config.data.root={made}/classes "
    "--config.data.train_split=training",
}
