"""Writes the boxes that a detector finds in image files: pictures and lists.

JAX is not imported, because a device writes the same files.
"""

import json
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from etils import epath

from seaformer_jax.data import images
from seaformer_jax.data.labels import distinct_colours
from seaformer_jax.evaluation import pictures


class Found(Protocol):
    """The D boxes of an image, best first.

    Attributes:
        boxes: (x1, y1, x2, y2) in pixels of the image, float32 [D, 4].
        scores: float32 [D].
        labels: Classes, int32 [D].
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


def colours(class_names: Sequence[str]) -> tuple[pictures.Colour, ...]:
    """Returns the colour of every class."""
    return distinct_colours(len(class_names) + 1)[1:]  # Pascal's first colour is black.


def draw(image: np.ndarray, found: Found, class_names: Sequence[str]) -> np.ndarray:
    """Returns the image uint8 [H, W, 3] with boxes, names and scores."""
    names = [
        f"{class_names[label]} {100 * score:.0f}"
        for label, score in zip(found.labels, found.scores, strict=True)
    ]
    of_class = colours(class_names)
    return pictures.draw_boxes(image, found.boxes, names, [of_class[label] for label in found.labels])


def write(
    paths: Sequence[epath.Path],
    folder: epath.Path,
    find: Callable[[np.ndarray], Found],
    class_names: Sequence[str],
) -> int:
    """Writes the boxes in the images at `paths` into `folder`; logs those that cannot be read.

    - `<name>_boxes.png`: the image with boxes, names and scores.
    - `predictions.jsonl`: for every image its boxes (x1, y1, x2, y2) in pixels, best first.

    A name is the image's file name without its extension; equal names are numbered.

    Args:
        paths: Paths of the images.
        folder: Folder to write into.
        find: Finds the boxes in an image uint8 [H, W, 3].
        class_names: Name of every class.
    Returns:
        The number of images that were predicted.
    Raises:
        UserError: None of the images can be read.
    """
    rows = []
    names = dict(zip(paths, pictures.distinct_names(paths), strict=True))
    for path, image in images.readable(paths):
        found, name = find(image), f"{names[path]}_boxes.png"
        pictures.save(draw(image, found, class_names), folder / name)
        rows.append({"image": str(path), "picture": name, "boxes": _rows(found, class_names)})
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return len(rows)


def _rows(found: Found, class_names: Sequence[str]) -> list[dict]:
    return [
        {
            "label": class_names[label],
            "score": round(float(score), 6),
            "box": [round(float(side), 2) for side in box],
        }
        for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True)
    ]
