"""Packed records of a classification data set: what `prepare` writes and `data.source=records` reads.

A split is a folder:

    records.json        the card: how the images are stored, the class names, the shards and their hashes
    00000.array_record  a shard: a JPEG file for each image; or 00000.uint8: the pixels of one image after another
    00000.npz           its index: `label`, `height` and `width` of each image

The short side of every image is at most `short_side`. Upright images are stored lying, transposed, so that a crop of
any of them fits into one lying window.
"""

import functools
import os
from typing import Any

import numpy as np
from etils import epath

from seaformer_jax import errors, json_files, paths
from seaformer_jax.data import files, images, labels

CARD = "records.json"
SUFFIXES = {"jpeg": "array_record", "uint8": "uint8"}
MISSING = 'a package is missing ({}): pip install "seaformer-jax[input]"'


class Records:
    """A prepared split; `source[i]` is the image as it was, not lying.

    The files are opened when an image is read, because worker processes are spawned.

    Attributes:
        labels: `LabelSpec` with the class names.
        short_side: The largest short side of an image, in pixels.
    """

    def __init__(self, root: str | os.PathLike, split: str, decode: images.Decode = images.decode):
        """Reads the card and the indices of all shards.

        Args:
            root: `data.root`.
            split: Name of the split's folder.
            decode: Function that decodes an image file.

        Raises:
            UserError: The folder or a file is missing, unfinished or damaged, or is in a bucket.
        """
        root = files.root_folder(root, f"{split}/{CARD}")
        self._folder = local(files.subfolder(root, split, "data.root, data.train_split or data.val_split"))
        card = read_card(self._folder)
        if card["images"] is None:
            raise errors.UserError(
                f"{self._folder}: the records are unfinished; run the same prepare command again"
            )
        self.labels, self.short_side = labels.LabelSpec(card["class_names"]), card["short_side"]
        self._decode, self._raw = decode, card["store"] == "uint8"
        self._shards = [shard_path(self._folder, i, card["store"]) for i in range(len(card["shards"]))]
        for shard, entry in zip(self._shards, card["shards"], strict=True):
            check_size(shard, entry["bytes"])
        index = [read_index(shard) for shard in self._shards]
        self._index = {name: np.concatenate([part[name] for part in index]) for name in index[0]}
        self._starts = np.cumsum([0, *(entry["images"] for entry in card["shards"])])
        # Where an image's pixels begin in its shard.
        sizes = 3 * self._index["height"].astype(np.int64) * self._index["width"]
        self._ends = np.cumsum(sizes)
        self._offsets = self._ends - sizes

    def __len__(self) -> int:
        return len(self._index["label"])

    def __getitem__(self, index: int) -> dict[str, Any]:
        element = self.lying(index)
        if element.pop("upright"):
            element["image"] = np.asarray(element["image"]).swapaxes(0, 1)
        return element

    def lying(self, index: int) -> dict[str, Any]:
        """Returns an element whose `image` is as it is stored, and `upright`, whether it has to be transposed."""
        label, height, width = (int(self._index[name][index]) for name in ("label", "height", "width"))
        shape = (min(height, width), max(height, width), 3)
        image = self._pixels(index, shape) if self._raw else self._decoded(index)
        return {"image": image, "label": label, "upright": height > width}

    def _pixels(self, index: int, shape: tuple[int, int, int]) -> np.ndarray:
        """Returns the pixels of an image without reading them: they are in a file that is mapped into memory."""
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        first = int(self._offsets[index] - self._offsets[self._starts[shard]])
        return self._mapped[shard][first : first + 3 * shape[0] * shape[1]].reshape(shape)

    @functools.cached_property
    def _mapped(self) -> list[np.ndarray]:
        return [np.memmap(shard, np.uint8, mode="r").view(np.ndarray) for shard in self._shards]

    def _decoded(self, index: int) -> Any:
        name = f"{self._folder}[{index}]"
        try:
            data = self._files[index]
        except errors.UserError:
            raise
        except Exception as error:  # A damaged file raises whatever the damage leads to.
            raise errors.CorruptImageError(
                f"{name}: the record cannot be read ({errors.summary(error)}); prepare the data set again"
            ) from error
        return self._decode(data, name)

    @functools.cached_property
    def _files(self) -> Any:
        try:
            import grain

            return grain.sources.ArrayRecordDataSource([os.fspath(shard) for shard in self._shards])
        except ImportError as error:
            raise errors.UserError(MISSING.format(error)) from error

    def __getstate__(self) -> dict[str, Any]:
        opened = ("_mapped", "_files")
        return {name: value for name, value in self.__dict__.items() if name not in opened}


class Lying:
    """The elements of `Records.lying` as a source; the attributes are those of the records."""

    def __init__(self, records: Records):
        self.labels, self.short_side, self._records = records.labels, records.short_side, records

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._records.lying(index)


def local(folder: epath.Path) -> epath.Path:
    """Returns `folder` if it is on a file system; otherwise UserError."""
    if paths.in_bucket(folder):
        raise errors.UserError(
            f"{folder} is in a bucket; records are mapped into memory and read at random places: copy them to a disk "
            "of each host and give that folder"
        )
    return folder


def shard_path(folder: epath.Path, number: int, store: str) -> epath.Path:
    """Returns the file of a shard."""
    return folder / f"{number:05}.{SUFFIXES[store]}"


def read_card(folder: epath.Path) -> dict[str, Any]:
    """Returns the card of a split; UserError if there is none or it is damaged."""
    try:
        return json_files.read(folder / CARD)
    except OSError as error:
        raise errors.UserError(
            f"{folder}: no {CARD} (found {files.listing(folder)}); make it with python -m seaformer_jax.prepare"
        ) from error
    except ValueError as error:
        raise errors.UserError(f"{folder / CARD} is damaged; prepare the data set again") from error


def read_index(shard: epath.Path) -> dict[str, np.ndarray]:
    """Returns the arrays of the index of a shard; UserError if it cannot be read."""
    path = shard.with_suffix(".npz")
    try:
        with np.load(path) as arrays:
            return {name: arrays[name] for name in ("label", "height", "width")}
    except Exception as error:  # A damaged file raises whatever the damage leads to.
        raise errors.UserError(
            f"{path} cannot be read ({errors.summary(error)}); prepare the data set again"
        ) from error


def check_size(path: epath.Path, expected: int) -> None:
    """Checks that a file has its size, which a copy that was interrupted does not have.

    Raises:
        UserError: It is missing or has another size.
    """
    found = path.stat().length if path.exists() else 0
    if found != expected:
        raise errors.UserError(
            f"{path} has {found} bytes; expected {expected}: copy it again, or remove {CARD} beside it and prepare "
            "the data set again"
        )
