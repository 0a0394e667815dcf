"""Segmentation data sets of TensorFlow Datasets."""

import os

import numpy as np
from absl import logging

from seaformer_jax import errors
from seaformer_jax.data.segmentation import label_sets, masks
from seaformer_jax.data.segmentation.layouts import decode_pair
from seaformer_jax.data.tfds import open_records

# The names of the features that hold the image and its mask.
_FEATURES = {
    "scene_parse150": ("image", "annotation"),
    "cityscapes": ("image_left", "segmentation_label"),
}


class TFDSMasks:
    """`scene_parse150` and `cityscapes` as TensorFlow Datasets prepares them.

    scene_parse150 stores `annotations_instance`. The red channel has the number of one of 100 countable categories,
    the green channel the number of the object. The categories become ADE20K's classes; everything that is not
    countable (walls, sky, ...) is ignored. A mask with one channel, or with three equal ones, is read as ADE20K's
    own, with all 150 classes. cityscapes stores `labelIds`.

    Args:
        name: Name of the data set, as in `data.tfds.open_records`.
        split: A split of the data set, or a slice of one.
        data_dir: Folder where it was prepared; "" for TFDS's own default.

    Raises:
        UserError: The name is that of another data set; or as `open_records`.
    """

    def __init__(self, name: str, split: str, data_dir: str | os.PathLike):
        self._data_set = name.split("/")[0].split(":")[0]
        if self._data_set not in _FEATURES:
            raise errors.UserError(
                f"data.name is {name!r}; expected one of {', '.join(_FEATURES)} for segmentation."
                + errors.suggest(self._data_set, _FEATURES)
            )
        self._name = f"{name}/{split}"
        self._image, self._mask = _FEATURES[self._data_set]
        self._records, features = open_records(name, split, data_dir, (self._image, self._mask))
        # Without a fixed size in the features, sizes are read from the records.
        height, width, _ = features[self._image].shape
        self._size = (height, width) if height and width else None
        create_labels = label_sets.ade20k if self._data_set == "scene_parse150" else label_sets.cityscapes_ids
        self.labels = create_labels()
        if self._data_set == "scene_parse150" and self._counts_objects():
            logging.warning(
                "%s labels only the 100 countable classes of ADE20K: walls, sky, roads and the like are ignored, and "
                "scores are not those of the 150 classes; for all of them see python -m seaformer_jax.prepare_ade20k",
                self._name,
            )

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict:
        record, name = self._records[index], f"{self._name}[{index}]"
        return decode_pair(
            record[self._image], record[self._mask], name, f"{name} {self._mask}", self._encode
        )

    def size(self, index: int) -> tuple[int, int]:
        """Returns the size that all images share (Cityscapes), or reads the record and decodes its header."""
        return self._size or masks.image_size(self._records[index][self._image], f"{self._name}[{index}]")

    def _counts_objects(self) -> bool:
        """Returns whether the first mask numbers countable objects; if it cannot be read, that shows later."""
        try:
            raw = masks.decode(self._records[0][self._mask], f"{self._name}[0] {self._mask}")
        except (errors.CorruptImageError, IndexError):
            return False
        return _is_of_objects(raw)

    def _encode(self, raw: np.ndarray, name: str) -> np.ndarray:
        """Turns the values of a mask into classes; each mask of scene_parse150 shows its own encoding."""
        if self._data_set == "scene_parse150" and raw.ndim == 3:
            spec = label_sets.ade20k_objects() if _is_of_objects(raw) else self.labels
            return spec.encode(raw[..., 0], name)
        return self.labels.encode(raw, name)


def _is_of_objects(raw: np.ndarray) -> bool:
    """Returns whether a mask of scene_parse150 has category and object in channels of their own."""
    return raw.ndim == 3 and not ((raw[..., 0] == raw[..., 1]).all() and (raw[..., 0] == raw[..., 2]).all())
