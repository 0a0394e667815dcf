"""Classification data sets of TensorFlow Datasets."""

import os

from seaformer_jax import errors
from seaformer_jax.data import images, labels
from seaformer_jax.data.tfds import open_records


class TFDS:
    """A split of a classification data set: features `image` and `label`."""

    def __init__(
        self, name: str, split: str, data_dir: str | os.PathLike, decode: images.Decode = images.decode
    ):
        """Opens the prepared files; see `open_records`."""
        self._name, self._decode = f"{name}/{split}", decode
        self._records, features = open_records(name, split, data_dir, ("image", "label"))
        if not hasattr(features["label"], "names"):
            raise errors.UserError(f"{name}: the label is {features['label']}; expected a ClassLabel")
        self.labels = labels.LabelSpec(tuple(features["label"].names))

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict:
        record = self._records[index]
        return {
            "image": self._decode(record["image"], f"{self._name}[{index}]"),
            "label": int(record["label"]),
        }
