"""Opens a segmentation data set by its `data.source`, in the folder layouts of the field.

A source gives random access to images with masks. It has a length, `labels` (a `LabelSpec`), `source[i] ->
{"image": uint8 [height, width, 3], "label": uint8 [height, width]}` with classes 0 .. C - 1 and 255 for ignored
pixels, and `source.size(i) -> (height, width)`, which reads only the header of a file. It can be pickled, and it
opens its files only when they are read.

| data.source | data.root holds | train_split, val_split |
| --- | --- | --- |
| ade20k | images/<split>/*.jpg, annotations/<split>/*.png | training, validation |
| cityscapes | leftImg8bit/<split>/<city>/*_leftImg8bit.png, gtFine/<split>/<city>/*_gtFine_*.png | train, val |
| pascal_context, pascal_context_59 | JPEGImages/*.jpg, SegmentationClassContext/*.png, ImageSets/SegmentationContext/<split>.txt | train, val |
| coco_stuff | images/<split>/*.jpg, annotations/<split>/*_labelTrainIds.png, imageLists/<split, less its year>.txt | train2014, test2014 |
| camvid | images/<split>/*, annotations/<split>/*.png | train, val |
| pairs | <data.images>/<split>/**, <data.annotations>/<split>/**.png | names of the folders |
| tfds | scene_parse150 or cityscapes (data.name), as TensorFlow Datasets prepares them | train, and test or validation |
| shapes | (nothing) | |
"""  # noqa: E501

from typing import Protocol

import ml_collections
import numpy as np

from seaformer_jax import errors
from seaformer_jax.data import labels, shapes
from seaformer_jax.data.segmentation import label_sets, layouts
from seaformer_jax.data.segmentation.tfds import TFDSMasks

_LOOKED_AT = 16  # Images in which `check_labelled` looks for labels.


class Source(Protocol):
    """What the pipeline needs from a data set."""

    labels: labels.LabelSpec

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict: ...

    def size(self, index: int) -> tuple[int, int]: ...


def create(config: ml_collections.ConfigDict, split: str) -> Source:
    """Opens the data set that `config` names.

    Args:
        config: The config's `data`: `source` and the keys that this source needs. All but shapes: `root`,
            `train_split`, `val_split`; tfds: `name`; shapes: `train_size`, `val_size`, `image_size`; pairs:
            `images`, `annotations`, `class_names`, `palette`, `reduce_zero_label`, `ignore_label`, `id_map`.
        split: "train" or "val".

    Raises:
        UserError: The source is unknown, or the data set is missing, incomplete or empty.
    """
    create_source = _SOURCES.get(config.source)
    if create_source is None:
        raise errors.UserError(
            f"data.source is {config.source!r}; expected one of {', '.join(_SOURCES)}."
            + errors.suggest(config.source, _SOURCES)
        )
    return create_source(config, split)


def check_labelled(source: Source, split: str) -> None:
    """Raises UserError if a few images, spread evenly over a split, have no labelled pixel at all.

    Args:
        source: A data set of `create`.
        split: "train" or "val".
    """
    chosen = np.unique(np.linspace(0, len(source) - 1, _LOOKED_AT).astype(int))
    if not any(_has_labels(source, index) for index in chosen):
        raise errors.UserError(
            f"none of {len(chosen)} images of data.{split}_split has a labelled pixel, all are ignored; correct the "
            "masks, or data.id_map, data.ignore_label or data.reduce_zero_label"
        )


def _has_labels(source: Source, index: int) -> bool:
    try:
        return bool((source[index]["label"] != labels.IGNORED).any())
    except errors.CorruptImageError:
        return True  # `SkipCorrupt` decides what a broken file does.


def _folders(open_layout):
    """Returns the function that opens a data set in folders whose encoding is fixed."""
    return lambda config, split: open_layout(config.root, config[f"{split}_split"])


def _pairs(config: ml_collections.ConfigDict, split: str) -> layouts.MaskedImages:
    """Opens the user's own folders, whose encoding is given in the config."""
    names = tuple(config.class_names)
    if not names:
        raise errors.UserError("data.class_names is empty; name the classes, in the order of their numbers")
    # Sequences in a config may be lists; the fields of a `LabelSpec` are tuples.
    spec = labels.LabelSpec(
        names,
        tuple(tuple(colour) for colour in config.palette) or labels.distinct_colours(len(names)),
        config.ignore_label,
        config.reduce_zero_label,
        tuple((raw, k) for raw, k in config.id_map) if config.id_map else None,
    )
    # Check now: otherwise a contradiction in the config would only show at the first mask.
    spec.check()
    return layouts.pairs(config.root, config[f"{split}_split"], spec, config.images, config.annotations)


_SOURCES = {
    "ade20k": _folders(lambda root, split: layouts.pairs(root, split, label_sets.ade20k())),
    "cityscapes": _folders(layouts.cityscapes),
    "pascal_context": _folders(
        lambda root, split: layouts.pascal_context(root, split, label_sets.pascal_context())
    ),
    "pascal_context_59": _folders(
        lambda root, split: layouts.pascal_context(root, split, label_sets.pascal_context_59())
    ),
    "coco_stuff": _folders(layouts.coco_stuff),
    "camvid": _folders(lambda root, split: layouts.pairs(root, split, label_sets.camvid())),
    "pairs": _pairs,
    "shapes": lambda config, split: ShapesMasks(split, config[f"{split}_size"], config.image_size),
    "tfds": lambda config, split: TFDSMasks(config.name, config[f"{split}_split"], config.root),
}


class ShapesMasks:
    """The images and masks of `shapes`; the arguments are those of `shapes.Shapes`."""

    def __init__(self, split: str, size: int, image_size: int = 96, seed: int = 0):
        self.labels = label_sets.shapes_masks()
        self._shapes = shapes.Shapes(split, size, image_size, seed)
        self._side = image_size

    def __len__(self) -> int:
        return len(self._shapes)

    def __getitem__(self, index: int) -> dict:
        element = self._shapes.render(index)
        return {"image": element["image"], "label": self.labels.encode(element["mask"], f"shapes[{index}]")}

    def size(self, index: int) -> tuple[int, int]:
        return self._side, self._side
