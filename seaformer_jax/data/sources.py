"""Random-access sources of labelled images.

A source has a length, `labels` (a `LabelSpec`) and `source[i] -> {"image": uint8 [height, width, 3], "label":
int}`. It is picklable and opens its files only when an element is read: the reading processes are spawned.
Created with `decode=images.decode_pillow`, a source of files gives RGB Pillow images instead of arrays: what the
transforms would make of them, for less.
"""

import os
from typing import Protocol

import ml_collections
import numpy as np
from absl import logging

from seaformer_jax import errors
from seaformer_jax.data import files, images, labels, shapes
from seaformer_jax.data.tfds_source import TFDS

_ON_CORRUPT = ("error", "skip")


class Source(Protocol):
    """What the pipeline asks of a data set."""

    labels: labels.LabelSpec

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict: ...


def create(config: ml_collections.ConfigDict, split: str, decode: images.Decode = images.decode) -> Source:
    """Opens the data set that `config` (the record's `data`) names.

    Args:
        config: `source`, and what that source needs: `root`, `name`, `train_split`, `val_split`,
            `train_size`, `val_size`, `image_size`.
        split: "train" or "val".
        decode: makes an element's image of a file.

    Raises:
        UserError: an unknown source, or a data set that is not there.
    """
    create_source = _SOURCES.get(config.source)
    if create_source is None:
        raise errors.UserError(
            f"data.source is {config.source!r}; expected one of {', '.join(_SOURCES)}."
            + errors.suggest(config.source, _SOURCES)
        )
    return create_source(config, split, decode)


_SOURCES = {
    "shapes": lambda config, split, _: shapes.Shapes(split, config[f"{split}_size"], config.image_size),
    "folder": lambda config, split, decode: ImageFolder(config.root, config[f"{split}_split"], decode),
    "tfds": lambda config, split, decode: TFDS(config.name, config[f"{split}_split"], config.root, decode),
}


def check_num_classes(source: Source, expected: int) -> None:
    """Raises `errors.UserError` where the data set does not have the `expected` number of classes."""
    names = source.labels.class_names
    if len(names) != expected:
        raise errors.UserError(
            f"the data set has {len(names)} classes ({names[0]!r} to {names[-1]!r}), but task.num_classes is "
            f"{expected}; set --config.task.num_classes={len(names)}, or correct config.data"
        )


class ImageFolder:
    """`<root>/<split>/<class>/**/*.jpg`: classes are the sorted names of the folders, as in torchvision."""

    def __init__(self, root: str | os.PathLike, split: str, decode: images.Decode = images.decode):
        """Lists the files.

        Raises:
            UserError: a folder is missing, there are no class folders, or one of them holds no image.
        """
        root = files.root_folder(root, f"{split}/<class>/*.jpg")
        self._folder = files.subfolder(root, split, "data.root, data.train_split or data.val_split")
        names = sorted(entry.name for entry in os.scandir(self._folder) if entry.is_dir())
        if not names:
            found = files.listing(self._folder)
            raise errors.UserError(
                f"{self._folder}: no class folders (found {found}); expected <class>/*.jpg"
            )
        self.labels = labels.LabelSpec(tuple(names))
        self._decode = decode
        paths = [files.image_files(self._folder, name) for name in names]
        if empty := [name for name, found in zip(names, paths, strict=True) if not found]:
            raise errors.UserError(
                f"{self._folder}: no image in {len(empty)} of {len(names)} class folders ({files.some(empty)}); "
                f"add files that end in {', '.join(images.IMAGE_EXTENSIONS)}, or remove the folders"
            )
        # Bytes in one array: a list of a million paths is 100 MB, and every reading process has its own.
        self._paths = np.array([os.fsencode(path) for found in paths for path in found])
        self._labels = np.repeat(np.arange(len(names), dtype=np.int32), [len(found) for found in paths])

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> dict:
        path = os.path.join(self._folder, os.fsdecode(self._paths[index]))
        return {"image": self._decode(path, path), "label": int(self._labels[index])}


class ReadGuard:
    """A source whose elements say how many broken files were passed over: field "skipped" (int).

    Args:
        source: the data set.
        on_corrupt: "error": a file that cannot be decoded ends the run. "skip": it is logged and passed over.
        replace: what passing over means. True (training): the next readable element stands in for it. False
            (evaluation): a black image [32, 32, 3] with label 0 and skipped 1, to be left out of every count.

    Raises:
        UserError: an unknown policy; when reading, no readable image in the whole data set.
    """

    def __init__(self, source: Source, on_corrupt: str, replace: bool = True):
        if on_corrupt not in _ON_CORRUPT:
            raise errors.UserError(
                f"data.on_corrupt is {on_corrupt!r}; expected one of {', '.join(_ON_CORRUPT)}."
                + errors.suggest(on_corrupt, _ON_CORRUPT)
            )
        self.labels = source.labels
        self._source = source
        self._skip = on_corrupt == "skip"
        self._replace = replace

    def __len__(self) -> int:
        return len(self._source)

    def size(self, index: int) -> tuple[int, int] | None:
        """(height, width) of an image of a segmentation source; None where its header is broken and skipped."""
        try:
            return self._source.size(index)
        except errors.CorruptImageError:
            if not self._skip:
                raise
            return None

    def __getitem__(self, index: int) -> dict:
        for skipped in range(len(self)):
            try:
                return {**self._source[(index + skipped) % len(self)], "skipped": skipped}
            except errors.CorruptImageError as error:
                if not self._skip:
                    raise
                logging.warning("skipped a broken image: %s", error)
            if not self._replace:
                return {"image": np.zeros([32, 32, 3], np.uint8), "label": 0, "skipped": 1}
        raise errors.UserError(f"none of the {len(self)} images of the data set can be decoded; see the log")
