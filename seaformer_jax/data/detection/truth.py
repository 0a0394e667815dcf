"""The labelled boxes of a data set, as COCO stores them, and those of them that a detector trains on."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from absl import logging

from seaformer_jax import errors

SMALLEST_IMAGE = 32  # Training leaves out images with a shorter side (mmdetection's `filter_empty_gt`).


class Truth(NamedTuple):
    """All annotations of a split; the annotations are arrays over all images.

    Attributes:
        image_ids: Identifier of every image, int64 [N].
        sizes: (height, width) of every image in pixels, int32 [N, 2].
        category_ids: Identifier of every class, in the order of the labels.
        image: Index of the image of every annotation, int32 [M].
        label: Class of every annotation, int32 [M].
        boxes: (x, y, width, height) in pixels, float64 [M, 4].
        area: Area in square pixels; in COCO that of the object's outline, float64 [M].
        crowd: Whether the box holds a group of objects, bool [M].
        ignored: Whether the file says that the annotation is to be ignored in training, bool [M].
    """

    image_ids: np.ndarray
    sizes: np.ndarray
    category_ids: tuple[int, ...]
    image: np.ndarray
    label: np.ndarray
    boxes: np.ndarray
    area: np.ndarray
    crowd: np.ndarray
    ignored: np.ndarray


class Boxes(NamedTuple):
    """The boxes of every image to train on; those of image i are the rows `first[i]` to `first[i + 1]`.

    Attributes:
        first: int64 [N + 1].
        boxes: (x1, y1, x2, y2) in pixels, float32 [M, 4].
        labels: int32 [M].
    """

    first: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray

    def of(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns boxes [n, 4] and labels [n] of an image."""
        rows = slice(*self.first[index : index + 2])
        return self.boxes[rows], self.labels[rows]

    def counts(self) -> np.ndarray:
        """Returns the number of boxes of every image, int64 [N]."""
        return np.diff(self.first)


def boxes_to_train_on(truth: Truth, name: str) -> Boxes:
    """Returns the boxes that are trained on; logs how many others there are.

    Left out are crowds, ignored annotations, boxes outside their image, and boxes without area or of less than one
    pixel along a side, as in mmdetection's `CocoDataset`.

    Args:
        truth: Annotations of a split.
        name: Name of the data set in the log.
    """
    x, y, w, h = truth.boxes.T
    height, width = truth.sizes[truth.image].T
    outside = (np.minimum(x + w, width) <= np.maximum(x, 0)) | (np.minimum(y + h, height) <= np.maximum(y, 0))
    empty = (truth.area <= 0) | (w < 1) | (h < 1)
    if dropped := int((outside | empty).sum()):
        logging.warning(
            "%s: %d of %d boxes are outside their image or smaller than a pixel; training leaves them out",
            name,
            dropped,
            len(x),
        )
    kept = np.flatnonzero(~(truth.crowd | truth.ignored | outside | empty))
    kept = kept[np.argsort(truth.image[kept], kind="stable")]
    first = np.searchsorted(truth.image[kept], np.arange(len(truth.image_ids) + 1))
    corners = np.stack([x, y, x + w, y + h], -1)[kept]
    return Boxes(first, corners.astype(np.float32), truth.label[kept])


def images_to_train_on(truth: Truth, boxes: Boxes, most: int, name: str) -> np.ndarray:
    """Returns the indices of the images that have boxes and are not tiny.

    Args:
        truth: Annotations of a split.
        boxes: As from `boxes_to_train_on`.
        most: Most boxes that an image may have, `data.max_boxes`.
        name: Name of the data set in error messages.
    Raises:
        UserError: There is no such image, or one has too many boxes.
    """
    counts = boxes.counts()
    if counts.max(initial=0) > most:
        raise errors.UserError(
            f"{name}: the image with id {truth.image_ids[counts.argmax()]} has {counts.max()} boxes, but "
            f"data.max_boxes is {most}; set --config.data.max_boxes={counts.max()}"
        )
    chosen = np.flatnonzero((counts > 0) & (truth.sizes.min(1) >= SMALLEST_IMAGE))
    if not len(chosen):
        raise errors.UserError(
            f"{name}: none of {len(counts)} images has a box to train on; expected at least one; correct the "
            "annotations or data.annotations"
        )
    return chosen


def to_coco(truth: Truth, class_names: Sequence[str]) -> dict:
    """Returns the annotations in COCO's format, for pycocotools."""
    return {
        "images": [
            {"id": int(image), "height": int(height), "width": int(width)}
            for image, (height, width) in zip(truth.image_ids, truth.sizes, strict=True)
        ],
        "categories": [
            {"id": int(category), "name": name}
            for category, name in zip(truth.category_ids, class_names, strict=True)
        ],
        "annotations": [
            {
                "id": number + 1,  # pycocotools takes 0 for "no match".
                "image_id": int(truth.image_ids[truth.image[number]]),
                "category_id": int(truth.category_ids[truth.label[number]]),
                "bbox": truth.boxes[number].tolist(),
                "area": float(truth.area[number]),
                "iscrowd": int(truth.crowd[number]),
            }
            for number in range(len(truth.image))
        ],
    }
