"""Opens a detection data set by its `data.source`.

A source gives random access to images with boxes. It has a length, `labels` (a `LabelSpec`), `truth` (all its
annotations), `source[i] -> {"image": uint8 [height, width, 3], "boxes": float32 [n, 4], "labels": int32 [n],
"index": position in truth}` with boxes (x1, y1, x2, y2) in pixels, and `source.size(i) -> (height, width)`, which
reads no image. It can be pickled, and it opens its files only when they are read.

| data.source | data.root holds | train_split, val_split |
| --- | --- | --- |
| coco | <data.images>/*.jpg and the JSON file <data.annotations>; both may contain {split} | train2017, val2017 |
| tfds | coco/2017 (data.name) or another with boxes, as TensorFlow Datasets prepares it | train, validation |
| shapes | (nothing) | |
"""

import functools
from typing import Protocol

import ml_collections
import numpy as np

from seaformer_jax import errors
from seaformer_jax.data import labels, shapes
from seaformer_jax.data.detection.coco import CocoImages
from seaformer_jax.data.detection.tfds import TFDSBoxes
from seaformer_jax.data.detection.truth import Truth


class Source(Protocol):
    """What the pipeline needs from a data set."""

    labels: labels.LabelSpec
    truth: Truth

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict: ...

    def size(self, index: int) -> tuple[int, int]: ...


def create(config: ml_collections.ConfigDict, split: str) -> Source:
    """Opens the data set that `config` names.

    In "train" there are only images with boxes.

    Args:
        config: The config's `data`: `source`, `max_boxes` and the keys that this source needs. coco and tfds: `root`,
            `train_split`, `val_split`; coco: `images`, `annotations`; tfds: `name`; shapes: `train_size`, `val_size`,
            `image_size`.
        split: "train" or "val".

    Raises:
        UserError: The source is unknown, the data set is missing or incomplete, or an image has too many boxes.
    """
    create_source = _SOURCES.get(config.source)
    if create_source is None:
        raise errors.UserError(
            f"data.source is {config.source!r}; expected one of {', '.join(_SOURCES)}."
            + errors.suggest(config.source, _SOURCES)
        )
    return create_source(config, split)


def _coco(config: ml_collections.ConfigDict, split: str) -> CocoImages:
    folders = config.images, config.annotations
    return CocoImages(config.root, config[f"{split}_split"], *folders, _most(config, split))


def _tfds(config: ml_collections.ConfigDict, split: str) -> TFDSBoxes:
    return TFDSBoxes(config.name, config[f"{split}_split"], config.root, _most(config, split))


def _most(config: ml_collections.ConfigDict, split: str) -> int | None:
    return config.max_boxes if split == "train" else None


class ShapesBoxes:
    """The images and boxes of `shapes`; the arguments are those of `shapes.Shapes`."""

    labels = shapes.Shapes.labels

    def __init__(self, split: str, size: int, image_size: int = 96, seed: int = 0):
        self._shapes = shapes.Shapes(split, size, image_size, seed)
        self._side = image_size

    def __len__(self) -> int:
        return len(self._shapes)

    def __getitem__(self, index: int) -> dict:
        element = self._shapes.render(index)
        return {
            "image": element["image"],
            "boxes": element["boxes"],
            "labels": element["box_labels"].astype(np.int32),
            "index": np.int32(index),
        }

    def size(self, index: int) -> tuple[int, int]:
        return self._side, self._side

    @functools.cached_property
    def truth(self) -> Truth:
        """All annotations. The images are rendered for them, so this takes as long as reading the data once."""
        elements = [self[index] for index in range(len(self))]
        boxes = np.concatenate([element["boxes"] for element in elements]).astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        none = np.zeros(len(boxes), bool)
        return Truth(
            image_ids=np.arange(1, len(self) + 1),
            sizes=np.full((len(self), 2), self._side, np.int32),
            category_ids=tuple(range(1, len(self.labels.class_names) + 1)),
            image=np.repeat(np.arange(len(self)), [len(element["boxes"]) for element in elements]),
            label=np.concatenate([element["labels"] for element in elements]),
            boxes=boxes,
            area=boxes[:, 2] * boxes[:, 3],
            crowd=none,
            ignored=none,
        )


_SOURCES = {
    "coco": _coco,
    "tfds": _tfds,
    "shapes": lambda config, split: ShapesBoxes(split, config[f"{split}_size"], config.image_size),
}
