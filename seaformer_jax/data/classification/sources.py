"""Opens a classification data set by its `data.source`; holds the reader of image folders."""

import os

import ml_collections
import numpy as np

from seaformer_jax import errors, paths
from seaformer_jax.data import files, images, labels, shapes
from seaformer_jax.data.classification.records import Records
from seaformer_jax.data.classification.tfds import TFDS
from seaformer_jax.data.sources import Source


def create(config: ml_collections.ConfigDict, split: str, decode: images.Decode = images.decode) -> Source:
    """Opens the data set that `config` names.

    Args:
        config: The config's `data`: `source` and the keys that this source needs, of `root`, `name`,
            `train_split`, `val_split`, `train_size`, `val_size` and `image_size`.
        split: "train" or "val".
        decode: Function that decodes an image file: `images.decode`, or another one of that module.

    Raises:
        UserError: The source is unknown, or the data set cannot be found.
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
    "records": lambda config, split, decode: Records(config.root, config[f"{split}_split"], decode),
    "tfds": lambda config, split, decode: TFDS(config.name, config[f"{split}_split"], config.root, decode),
}


class ImageFolder:
    """The images of `<root>/<split>/<class>/**/*.jpg`.

    The classes are the sorted names of the folders, as in torchvision.

    Attributes:
        labels: `LabelSpec` with the class names.
    """

    def __init__(self, root: str | os.PathLike, split: str, decode: images.Decode = images.decode):
        """Lists the files.

        Args:
            root: `data.root`.
            split: Name of the split's folder.
            decode: Function that decodes an image file.

        Raises:
            UserError: A folder is missing, there are no class folders, or one of them holds no image.
        """
        # 1. Every folder of the split is a class.
        root = files.root_folder(root, f"{split}/<class>/*.jpg")
        self._folder = files.subfolder(root, split, "data.root, data.train_split or data.val_split")
        names = sorted(paths.entries(self._folder)[0])
        if not names:
            found = files.listing(self._folder)
            raise errors.UserError(
                f"{self._folder}: no class folders (found {found}); expected <class>/*.jpg"
            )
        self.labels = labels.LabelSpec(tuple(names))
        self._decode = decode
        # 2. All images of a class, whatever the depth of their folders; a class without images is an error.
        listed = [files.image_files(self._folder, name) for name in names]
        if empty := [name for name, found in zip(names, listed, strict=True) if not found]:
            raise errors.UserError(
                f"{self._folder}: no image in {len(empty)} of {len(names)} class folders ({files.some(empty)}); "
                f"add files that end in {', '.join(images.IMAGE_EXTENSIONS)}, or remove the folders"
            )
        # 3. Paths are kept as bytes in one array: a list of a million paths takes 100 MB, in every worker process.
        self._paths = np.array([os.fsencode(path) for found in listed for path in found])
        self._labels = np.repeat(np.arange(len(names), dtype=np.int32), [len(found) for found in listed])

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> dict:
        path = os.path.join(self._folder, os.fsdecode(self._paths[index]))
        return {"image": self._decode(path, path), "label": int(self._labels[index])}
