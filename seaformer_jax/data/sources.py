"""Random-access sources of labelled images.

A source has a length, `labels` (a `LabelSpec`) and `source[i] -> {"image": uint8 [height, width, 3], "label":
int}`. It is picklable and opens its files only when an element is read: the reading processes are spawned.
"""

import os
import pathlib
from typing import Protocol

import ml_collections
import numpy as np
from absl import logging

from seaformer_jax import errors
from seaformer_jax.data import images, labels, shapes

_ON_CORRUPT = ("error", "skip")


class Source(Protocol):
    """What the pipeline asks of a data set."""

    labels: labels.LabelSpec

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict: ...


def create(config: ml_collections.ConfigDict, split: str) -> Source:
    """Opens the data set that `config` (the record's `data`) names.

    Args:
        config: `source`, and what that source needs: `root`, `name`, `train_split`, `val_split`,
            `train_size`, `val_size`, `image_size`.
        split: "train" or "val".

    Raises:
        UserError: an unknown source, or a data set that is not there.
    """
    create_source = _SOURCES.get(config.source)
    if create_source is None:
        raise errors.UserError(
            f"data.source is {config.source!r}; expected one of {', '.join(_SOURCES)}."
            + errors.suggest(config.source, _SOURCES)
        )
    return create_source(config, split)


_SOURCES = {
    "shapes": lambda config, split: shapes.Shapes(split, config[f"{split}_size"], config.image_size),
    "folder": lambda config, split: ImageFolder(config.root, config[f"{split}_split"]),
    "tfds": lambda config, split: TFDS(config.name, config[f"{split}_split"], config.root),
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

    def __init__(self, root: str | os.PathLike, split: str):
        """Lists the files.

        Raises:
            UserError: a folder is missing, there are no class folders, or one of them holds no image.
        """
        self._folder = _split_folder(root, split)
        names = sorted(entry.name for entry in os.scandir(self._folder) if entry.is_dir())
        if not names:
            found = _listing(self._folder)
            raise errors.UserError(
                f"{self._folder}: no class folders (found {found}); expected <class>/*.jpg"
            )
        self.labels = labels.LabelSpec(tuple(names))
        files = [_image_files(self._folder, name) for name in names]
        if empty := [name for name, found in zip(names, files, strict=True) if not found]:
            raise errors.UserError(
                f"{self._folder}: no image in {len(empty)} of {len(names)} class folders ({_some(empty)}); "
                f"add files that end in {', '.join(images.IMAGE_EXTENSIONS)}, or remove the folders"
            )
        # Bytes in one array: a list of a million paths is 100 MB, and every reading process has its own.
        self._paths = np.array([path for found in files for path in found])
        self._labels = np.repeat(np.arange(len(names), dtype=np.int32), [len(found) for found in files])

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> dict:
        path = self._folder / os.fsdecode(self._paths[index])
        return {"image": images.decode(path, str(path)), "label": int(self._labels[index])}


def _split_folder(root: str | os.PathLike, split: str) -> pathlib.Path:
    if not os.fspath(root):
        raise errors.UserError(
            "data.root is empty; set --config.data.root to the folder that holds the splits"
        )
    root = pathlib.Path(root).expanduser()
    if not root.is_dir():
        raise errors.UserError(
            f"data.root {str(root)!r}: no such folder; expected {root}/{split}/<class>/*.jpg"
        )
    if not (root / split).is_dir():
        raise errors.UserError(
            f"{root}: no folder {split!r} (found {_listing(root)}); correct data.root, data.train_split or "
            "data.val_split"
        )
    return root / split


def _image_files(folder: pathlib.Path, name: str) -> list[bytes]:
    """Returns the paths, relative to `folder`, of the images below `folder/name`, in torchvision's order."""
    found = []
    for directory, _, files in sorted(os.walk(folder / name, followlinks=True)):
        relative = os.path.relpath(directory, folder)
        found += [
            os.path.join(relative, f) for f in sorted(files) if f.lower().endswith(images.IMAGE_EXTENSIONS)
        ]
    return [os.fsencode(path) for path in found]


def _listing(folder: pathlib.Path) -> str:
    return _some(sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir()))


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more if names else "nothing"


class TFDS:
    """A split of a data set that TensorFlow Datasets prepared for random access; needs no TensorFlow."""

    def __init__(self, name: str, split: str, data_dir: str | os.PathLike):
        """Opens the prepared files; neither the code that made them nor the network is asked.

        Preparing, once and anywhere, may need TensorFlow: TFDS's imagenet2012 and its `tfds` command do.

        Args:
            name: "imagenet2012", "name/config" or "name:version".
            split: a split of the data set, or a slice of one: "train[:90%]".
            data_dir: where it was prepared; "" for TFDS's own default.

        Raises:
            UserError: the package or the data set is missing, or it has no such split or no image and label.
        """
        self._name = f"{name}/{split}"
        try:
            self._records, class_names = _open_tfds(name, split, data_dir)
        except ImportError as error:
            raise errors.UserError(
                f'data.source is tfds, but a package is missing ({error}): pip install "seaformer-jax[tfds]"'
            ) from error
        self.labels = labels.LabelSpec(tuple(class_names))

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict:
        record = self._records[index]
        return {
            "image": images.decode(record["image"], f"{self._name}[{index}]"),
            "label": int(record["label"]),
        }


def _open_tfds(name: str, split: str, data_dir: str | os.PathLike):
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import read_only_builder

    folder = tfds.core.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
    prepare = f"tfds.builder({name!r}, data_dir=...).download_and_prepare(file_format='array_record')"
    try:
        builder = read_only_builder.builder_from_files(name, data_dir=folder)
    except tfds.core.DatasetNotFoundError as error:
        found = _listing(folder) if folder.is_dir() else "no such folder"
        raise errors.UserError(
            f"data set {name!r} is not in data.root {folder} (found {found}); prepare it there with {prepare}"
        ) from error
    features = builder.info.features
    if not {"image", "label"} <= set(features) or not isinstance(features["label"], tfds.features.ClassLabel):
        raise errors.UserError(
            f"{name} has the features {', '.join(features)}; expected 'image' and 'label', a ClassLabel"
        )
    try:
        records = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    except NotImplementedError as error:
        raise errors.UserError(
            f"{name} is in {folder} as {builder.info.file_format.value}, which has no random access; prepare "
            f"it in another data.root with {prepare}"
        ) from error
    except ValueError as error:  # An unknown split, or a slice that cannot be parsed.
        reason = str(error).splitlines()[0]
        raise errors.UserError(f"{name}: {reason} Correct data.train_split or data.val_split.") from error
    return records, features["label"].names


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
