"""Measures a detector's average precision as it is deployed: one image of a fixed size at a time."""

from collections.abc import Mapping

import numpy as np

from convert.export.accuracy import Predict, Progress, split_of
from convert.export.preparation import Preparation
from convert.labels.boxes import Decoding, decode
from seaformer_jax.data.class_names import check_same
from seaformer_jax.data.detection.coco import CocoImages
from seaformer_jax.data.labels import LabelSpec
from seaformer_jax.errors import UserError
from seaformer_jax.evaluation.coco import Judge

_ANNOTATIONS = "annotations/instances_{split}.json"


class BoxValidation:
    """Images with boxes in COCO's format, on which detectors are scored; the interface is that of `Validation`.

    Args:
        folder: Folder of images, such as images/val, in or below one called "images". Beside that one is the file
            annotations/instances_val.json.
        labels: The model's classes, which the categories must have.
        preparation: Preparation of the model's input.
        decoding: `Bundle.decoding`.

    Raises:
        UserError: A file is missing, there are no boxes, or the classes are not the model's.
    """

    metric = "AP"

    def __init__(
        self, folder: str, labels: LabelSpec, preparation: Preparation, decoding: Mapping[str, float]
    ):
        root, split = split_of(folder, _ANNOTATIONS)
        self._source = CocoImages(root, split, "images/{split}", _ANNOTATIONS)
        if not len(self._source.truth.image):
            raise UserError(f"--validation {folder} has no boxes, so there is nothing to compare with")
        check_same(self._source.labels.class_names, labels.class_names, "the model")
        self._judge = Judge(self._source.truth, labels.class_names)
        self._preparation = preparation
        self._decoding = Decoding(preparation.size, **decoding)

    def __len__(self) -> int:
        return len(self._source)

    def score(self, predict: Predict) -> float:
        """Returns COCO's average precision of `predict` in percent; the boxes are in pixels of the original image."""
        progress, most = Progress(len(self)), self._decoding.per_image
        found = {
            "index": np.zeros(len(self), int),
            "boxes": np.zeros((len(self), most, 4), np.float32),
            "scores": np.zeros((len(self), most), np.float32),
            "labels": np.zeros((len(self), most), np.int32),
        }
        for row in range(len(self)):
            progress.log(row)
            element = self._source[row]
            image = element["image"]
            (head,) = predict(self._preparation.fit(image))
            boxes = decode(head, self._decoding, self._preparation.photograph(image))
            found["index"][row] = element["index"]
            for name, values in boxes._asdict().items():
                found[name][row, : len(values)] = values
        return 100 * self._judge(found).scores["AP"]
