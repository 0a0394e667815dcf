"""Detection data sets of TensorFlow Datasets, such as coco/2017."""

import concurrent.futures
import os

import numpy as np
from absl import logging

from seaformer_jax import errors
from seaformer_jax.data import images, labels
from seaformer_jax.data.detection.boxed import BoxedImages
from seaformer_jax.data.detection.truth import Truth
from seaformer_jax.data.segmentation.masks import image_size
from seaformer_jax.data.tfds import open_records

# The identifiers of COCO's 80 classes, which TFDS counts from 0: results are written with these.
_COCO_IDS = tuple(sorted(set(range(1, 91)) - {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}))


class TFDSBoxes(BoxedImages):
    """A split of a data set with the features `image` and `objects` (`bbox`, `label`; `area`, `is_crowd` as in COCO).

    TFDS stores neither the sizes of the images nor which of them have boxes. So every record is read once when the
    data set is opened, on every host.

    Args:
        name: Name of the data set, as in `open_records`.
        split: A split of the data set, or a slice of one.
        data_dir: Folder where it was prepared; "" for TFDS's own default.
        max_boxes: As in `BoxedImages`.

    Raises:
        UserError: As `open_records`, or the objects have no labelled boxes.
    """

    def __init__(self, name: str, split: str, data_dir: str | os.PathLike, max_boxes: int | None = None):
        self._records, features = open_records(name, split, data_dir, ("image", "objects"))
        objects = features["objects"].feature
        if not {"bbox", "label"} <= set(objects):
            raise errors.UserError(
                f"{name}: the objects have {', '.join(objects)}; expected boxes, bbox and label"
            )
        names = tuple(objects["label"].names)
        logging.info("%s/%s: reading the sizes and boxes of %d images", name, split, len(self._records))
        truth = self._truth(_COCO_IDS if len(names) == 80 else tuple(range(1, len(names) + 1)))
        super().__init__(labels.LabelSpec(names), truth, f"{name}/{split}", max_boxes)

    def read(self, position: int) -> tuple[np.ndarray, str]:
        name = f"{self.name}[{position}]"
        return images.decode(self._records[position]["image"], name), name

    def _truth(self, category_ids: tuple[int, ...]) -> Truth:
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            rows = list(pool.map(self._annotations, range(len(self._records))))
        ids, sizes, boxes, classes, areas, crowds = zip(*rows, strict=True)
        return Truth(
            image_ids=np.array(ids, np.int64),
            sizes=np.array(sizes, np.int32),
            category_ids=category_ids,
            image=np.repeat(np.arange(len(rows)), [len(each) for each in classes]).astype(np.int32),
            label=np.concatenate(classes).astype(np.int32),
            boxes=np.concatenate(boxes),
            area=np.concatenate(areas),
            crowd=np.concatenate(crowds),
            ignored=np.zeros(sum(map(len, classes)), bool),
        )

    def _annotations(self, index: int) -> tuple:
        """Returns identifier, size, boxes, labels, areas and crowds of one image, as `Truth` has them."""
        record = self._records[index]
        height, width = image_size(record["image"], f"record {index}")
        objects = record["objects"]
        # TFDS's boxes are (ymin, xmin, ymax, xmax) as shares of the image.
        corners = np.asarray(objects["bbox"], np.float64).reshape(-1, 4) * [height, width, height, width]
        y1, x1, y2, x2 = corners.T
        boxes = np.stack([x1, y1, x2 - x1, y2 - y1], -1)
        areas = np.asarray(objects.get("area", boxes[:, 2] * boxes[:, 3]), np.float64)
        crowds = np.asarray(objects.get("is_crowd", np.zeros(len(boxes))), bool)
        identifier = int(record.get("image/id", index + 1))
        return identifier, (height, width), boxes, np.asarray(objects["label"], np.int32), areas, crowds
