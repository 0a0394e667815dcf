"""What the sources of images with boxes share."""

import numpy as np

from seaformer_jax import errors
from seaformer_jax.data.detection.truth import Truth, boxes_to_train_on, images_to_train_on
from seaformer_jax.data.labels import LabelSpec


class BoxedImages:
    """Images with the boxes of a `Truth`; subclasses implement `read`.

    Attributes:
        labels: `LabelSpec` with the class names.
        truth: All annotations of the split; the validation compares with them.

    Args:
        labels: The classes, in the order of the truth's labels.
        truth: The annotations.
        name: Name of the data set in messages.
        max_boxes: For training: leaves out the images without boxes, and refuses images with more boxes than this.
            None keeps all images.
    Raises:
        UserError: There is nothing to train on, or an image has too many boxes.
    """

    def __init__(self, labels: LabelSpec, truth: Truth, name: str, max_boxes: int | None):
        self.labels, self.truth, self.name = labels, truth, name
        self._boxes = boxes_to_train_on(truth, name)
        self._chosen = np.arange(len(truth.image_ids))
        if max_boxes is not None:
            self._chosen = images_to_train_on(truth, self._boxes, max_boxes, name)

    def read(self, position: int) -> tuple[np.ndarray, str]:
        """Returns the image uint8 [H, W, 3] at `position` in the truth, and its name in messages."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> dict:
        """Returns `image` uint8 [H, W, 3], `boxes` float32 [n, 4], `labels` int32 [n] and `index` in `truth`."""
        position = int(self._chosen[index])
        image, name = self.read(position)
        if image.shape[:2] != self.size(index):
            height, width = self.size(index)
            raise errors.UserError(
                f"{name}: the image is {image.shape[1]} x {image.shape[0]} pixels, but {self.name} says {width} x "
                f"{height}; its boxes would be in the wrong places"
            )
        boxes, classes = self._boxes.of(position)
        return {"image": image, "boxes": boxes, "labels": classes, "index": np.int32(position)}

    def size(self, index: int) -> tuple[int, int]:
        """Returns the (height, width) of an image, as the truth has it."""
        return tuple(self.truth.sizes[self._chosen[index]].tolist())
