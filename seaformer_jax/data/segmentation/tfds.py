"""Masks from TensorFlow Datasets."""

import os

import numpy as np

from seaformer_jax import errors
from seaformer_jax.data.segmentation import label_sets, masks
from seaformer_jax.data.segmentation.layouts import decode_pair
from seaformer_jax.data.tfds import open_records

# The features with the image and its mask.
_FEATURES = {
    "scene_parse150": ("image", "annotation"),
    "cityscapes": ("image_left", "segmentation_label"),
}


class TFDSMasks:
    """`scene_parse150` and `cityscapes` as TensorFlow Datasets prepares them.

    scene_parse150 stores `annotations_instance`, whose red channel has the number of one of 100 countable
    categories and whose green channel has that of the object; they become ADE20K's class numbers, and what is
    not countable (walls, sky, ...) is ignored. A mask of one channel, or of three equal ones, is taken for
    ADE20K's own, of all 150 classes. cityscapes stores `labelIds`.

    Args: see `tfds_source.open_records`.

    Raises:
        UserError: another data set; else as `open_records`.
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
        height, width, _ = features[self._image].shape
        self._size = (height, width) if height and width else None
        own = label_sets.ade20k if self._data_set == "scene_parse150" else label_sets.cityscapes_ids
        self.labels = own()

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict:
        record, name = self._records[index], f"{self._name}[{index}]"
        return decode_pair(
            record[self._image], record[self._mask], name, f"{name} {self._mask}", self._encode
        )

    def size(self, index: int) -> tuple[int, int]:
        """All are equal in some data sets (Cityscapes); else the record is read and its header decoded."""
        return self._size or masks.image_size(self._records[index][self._image], f"{self._name}[{index}]")

    def _encode(self, raw: np.ndarray, name: str) -> np.ndarray:
        if self._data_set == "scene_parse150" and raw.ndim == 3:
            equal = (raw[..., 0] == raw[..., 1]).all() and (raw[..., 0] == raw[..., 2]).all()
            spec = self.labels if equal else label_sets.ade20k_objects()
            return spec.encode(raw[..., 0], name)
        return self.labels.encode(raw, name)
