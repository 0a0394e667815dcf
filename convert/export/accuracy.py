"""Measures a model's score on labelled images as it is deployed: one image of a fixed size at a time."""

import time
from collections.abc import Callable

import numpy as np
from absl import logging
from etils import epath

from convert.export.preparation import Preparation
from convert.labels.class_map import classes
from seaformer_jax import paths
from seaformer_jax.data import images
from seaformer_jax.data.class_names import check_same
from seaformer_jax.data.classification import sources
from seaformer_jax.data.labels import IGNORED, LabelSpec
from seaformer_jax.data.segmentation import augment as resizing
from seaformer_jax.data.segmentation import layouts
from seaformer_jax.errors import UserError
from seaformer_jax.metrics import ConfusionMatrix, mean_of_present

METRICS = {"classification": "top1", "segmentation": "mIoU"}  # In percent.
_MASKS = "annotations"
_PATIENCE = 20  # Seconds between two lines of progress.

Predict = Callable[[np.ndarray], np.ndarray]  # uint8 [H, W, 3] -> logits, logits8 or labels, channels last


class Progress:
    """Logs how many of `count` images are scored, but not too often."""

    def __init__(self, count: int):
        self._count, self._began = count, time.monotonic()

    def log(self, done: int) -> None:
        if time.monotonic() - self._began > _PATIENCE:
            logging.info("scored %d of %d images", done, self._count)
            self._began = time.monotonic()


class Validation:
    """A folder of labelled images, on which models are scored.

    Args:
        folder: For classification a folder with `<class>/*.jpg`. For segmentation a folder of images, such as
            images/val, in or below a folder called "images"; the masks are in "annotations" beside that one.
        labels: The model's classes, which the labels must have, and the encoding of masks.
        preparation: Preparation of the model's input.

    Raises:
        UserError: The folder has no images, its classes are not the model's, or masks are missing.
    """

    def __init__(self, folder: str, labels: LabelSpec, preparation: Preparation):
        path = paths.real(paths.of(folder))
        self._preparation, self._classes = preparation, labels.num_classes
        self.metric = METRICS[preparation.task]
        if preparation.task == "classification":
            self._source = sources.ImageFolder(path.parent, path.name, images.decode)
            check_same(self._source.labels.class_names, labels.class_names, "the model")
        else:
            self._source = _masked(path, labels)

    def __len__(self) -> int:
        return len(self._source)

    def score(self, predict: Predict) -> float:
        """Returns the score of `predict` in percent: top-1 accuracy, or mIoU at the size of the input."""
        # Both scores come from one confusion matrix.
        counts = np.zeros((self._classes, self._classes), np.int64)
        progress = Progress(len(self))
        for index in range(len(self)):
            progress.log(index)
            element = self._source[index]
            output = predict(self._preparation.fit(element["image"]))
            found = classes(output, self._preparation.size)
            counts += self._count(np.asarray(element["label"]), found)
        confusion = ConfusionMatrix(counts)
        return 100 * (mean_of_present(confusion.iou()) if self.metric == "mIoU" else confusion.accuracy())

    def _count(self, label: np.ndarray, found: np.ndarray) -> np.ndarray:
        """Returns the counts [true class, predicted class] of one image."""
        # A mask is resized to the input, at whose size the prediction is; a class number has no axes.
        if label.ndim:
            label = resizing.resize_label(label, self._preparation.size)
        known = label != IGNORED if label.ndim else np.True_
        # Number each pair (true, predicted) and count the numbers.
        pairs = label[known].astype(np.int64) * self._classes + found[known]
        return np.bincount(pairs.ravel(), minlength=self._classes**2).reshape(2 * (self._classes,))


def _masked(path: epath.Path, labels: LabelSpec) -> layouts.MaskedImages:
    """Pairs the images in `path` with their masks: <root>/images/<split> with <root>/annotations/<split>."""
    root, split = split_of(path, f"{_MASKS!r} with the masks")
    return layouts.pairs(root, split, labels)


def split_of(folder: str | epath.Path, beside: str) -> tuple[epath.Path, str]:
    """Splits the path <root>/images/<split> into the root and the name of the split.

    Args:
        folder: The path.
        beside: What is expected beside the folder of the images, for the error message.

    Raises:
        UserError: No folder in the path is called "images".
    """
    path = paths.real(paths.of(folder))
    parts = path.parts
    if "images" not in parts:
        raise UserError(
            f"--validation {path}: expected a folder of images in or below one called 'images', beside which "
            f"there is {beside}, e.g. data/images/val"
        )
    # The last "images" in the path, since folders above may be called so, too.
    position = len(parts) - 1 - parts[::-1].index("images")
    root, split = (epath.Path(*part) for part in (parts[:position], parts[position + 1 :]))
    return root, str(split)
