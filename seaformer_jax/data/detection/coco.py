"""Data sets in COCO's format: folders of images, and a JSON file of boxes for each split."""

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from seaformer_jax import errors
from seaformer_jax.data import files, images, labels
from seaformer_jax.data.detection.boxed import BoxedImages
from seaformer_jax.data.detection.truth import Truth

_KEYS = "data.root, data.annotations, data.train_split or data.val_split"


class Parsed(NamedTuple):
    """The contents of a JSON file.

    Attributes:
        names: File name of every image.
        class_names: Names of the classes, in the order of their identifiers.
        truth: The annotations.
    """

    names: list[str]
    class_names: tuple[str, ...]
    truth: Truth


class CocoImages(BoxedImages):
    """A split of a data set in COCO's format; the classes are in the order of the categories' identifiers.

    Args:
        root: `data.root`.
        split: Name of the split, which takes the place of "{split}" in the next two.
        image_folder: Folder of the images below root, e.g. "{split}".
        annotations: JSON file below root, e.g. "annotations/instances_{split}.json".
        max_boxes: As in `BoxedImages`.
    Raises:
        UserError: A file or a folder is missing, or the file is not in COCO's format; or as `BoxedImages`.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        split: str,
        image_folder: str,
        annotations: str,
        max_boxes: int | None = None,
    ):
        folder, path = (name.replace("{split}", split) for name in (image_folder, annotations))
        base = files.root_folder(root, f"{folder}/*.jpg and {path}")
        self._folder = files.subfolder(
            base, folder, "data.root, data.images, data.train_split or data.val_split"
        )
        parsed = read(base / path)
        super().__init__(labels.LabelSpec(parsed.class_names), parsed.truth, str(base / path), max_boxes)
        self._check_files(parsed.names)
        # Bytes in one array instead of a list of strings, which every worker process would hold.
        self._names = np.array([os.fsencode(name) for name in parsed.names])

    def _check_files(self, names: list[str]) -> None:
        """Raises UserError if an image of the JSON file does not exist."""
        found = set(files.image_files(self._folder))
        if missing := [name for name in names if os.path.normpath(name) not in found]:
            raise errors.UserError(
                f"{self._folder}: {len(missing)} of {len(names)} images of {self.name} are missing "
                f"({files.some(missing)}); expected all of them; correct data.images, or take them out of the file"
            )

    def read(self, position: int) -> tuple[np.ndarray, str]:
        path = os.path.join(self._folder, os.fsdecode(self._names[position]))
        return images.decode(path, path), path


def read(path: epath.Path) -> Parsed:
    """Reads a JSON file in COCO's format.

    Raises:
        UserError: The file cannot be read, is not JSON, or is not in COCO's format.
    """
    content = _content(path)
    images_, categories, annotations = (_entries(content, key, path) for key in _NEEDED)
    categories = sorted(categories, key=lambda category: category["id"])
    label_of = {category["id"]: label for label, category in enumerate(categories)}
    index_of = {image["id"]: index for index, image in enumerate(images_)}
    for kind, table, entries in (("images", index_of, images_), ("categories", label_of, categories)):
        if len(table) < len(entries):
            raise errors.UserError(f"{path}: two of the {kind} have the same id; expected different ones")
    _check_references(annotations, "image_id", index_of, "images", path)
    _check_references(annotations, "category_id", label_of, "categories", path)
    truth = Truth(
        image_ids=np.array([image["id"] for image in images_], np.int64),
        sizes=np.array([(i["height"], i["width"]) for i in images_], np.int32).reshape(-1, 2),
        category_ids=tuple(label_of),
        image=np.array([index_of[a["image_id"]] for a in annotations], np.int32),
        label=np.array([label_of[a["category_id"]] for a in annotations], np.int32),
        boxes=np.array([a["bbox"] for a in annotations], np.float64).reshape(-1, 4),
        area=np.array([_area(a) for a in annotations], np.float64),
        crowd=np.array([bool(a.get("iscrowd", 0)) for a in annotations], bool),
        ignored=np.array([bool(a.get("ignore", 0)) for a in annotations], bool),
    )
    names = [str(image["file_name"]) for image in images_]
    return Parsed(names, tuple(str(category["name"]) for category in categories), truth)


# Lists of a file -> test of an entry, and the description of what passes it.
_NEEDED = {
    "images": (
        lambda e: (
            _whole(e, "id", "width", "height")
            and e["width"] * e["height"] > 0
            and isinstance(e.get("file_name"), str)
        ),
        "id, file_name, width and height of at least 1",
    ),
    "categories": (lambda e: _whole(e, "id") and isinstance(e.get("name"), str), "id and name"),
    "annotations": (
        lambda e: _whole(e, "image_id", "category_id") and _is_box(e.get("bbox")),
        "image_id, category_id and bbox [x, y, width, height]",
    ),
}


def _content(path: epath.Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        found = f" (found {files.listing(path.parent)})" if path.parent.is_dir() else ""
        reason = error.strerror or error
        raise errors.UserError(f"{path}: cannot be read: {reason}{found}; correct {_KEYS}") from error
    except ValueError as error:
        raise errors.UserError(f"{path}: is not JSON: {errors.summary(error)}") from error
    if not isinstance(content, dict) or not _NEEDED.keys() <= content.keys():
        found = f"the keys {files.some(list(content))}" if isinstance(content, dict) else "a list or a number"
        raise errors.UserError(
            f"{path}: is not in COCO's format: found {found}; expected {', '.join(_NEEDED)}"
        )
    return content


def _entries(content: Mapping[str, Any], key: str, path: epath.Path) -> list[dict[str, Any]]:
    """Returns the list `key` of the file, after checking its entries."""
    holds, expected = _NEEDED[key]
    entries = content[key]
    if not isinstance(entries, list):
        raise errors.UserError(f"{path}: {key} is no list; expected COCO's format")
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not holds(entry):
            raise errors.UserError(
                f"{path}: {key}[{number}] is {entry!s:.80}; expected {expected} as in COCO's format"
            )
    if not entries and key != "annotations":
        raise errors.UserError(f"{path}: has no {key}; expected at least one")
    return entries


def _check_references(
    annotations: list[dict], key: str, known: Mapping[int, int], kind: str, path: epath.Path
) -> None:
    """Raises UserError if an annotation is about an image or a category that the file does not have."""
    if unknown := sorted({a[key] for a in annotations} - known.keys()):
        raise errors.UserError(
            f"{path}: annotations have the {key} {files.some(list(map(str, unknown)))}, but {kind} has no such id; "
            f"add it to {kind}, or remove these annotations"
        )


def _whole(entry: Mapping[str, Any], *keys: str) -> bool:
    """Returns whether all values are whole numbers of at least 0."""
    return all(type(entry.get(key)) is int and entry[key] >= 0 for key in keys)


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(_is_finite(number) for number in value)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def _area(annotation: Mapping[str, Any]) -> float:
    """Returns the area of the object; files of other tools lack it, and then it is that of the box."""
    area = annotation.get("area")
    return area if _is_finite(area) else annotation["bbox"][2] * annotation["bbox"][3]
