"""Classification data sets of TensorFlow Datasets."""

import os

from seaformer_jax import errors
from seaformer_jax.data import images, labels
from seaformer_jax.data.tfds import open_records


class TFDS:
    """A split of a classification data set with the features `image` and `label`.

    Attributes:
        labels: `LabelSpec` with the class names.
    """

    def __init__(
        self, name: str, split: str, data_dir: str | os.PathLike, decode: images.Decode = images.decode
    ):
        """Opens the prepared files.

        Args:
            name: Name of the data set, as in `open_records`.
            split: A split of the data set, or a slice of one.
            data_dir: Folder where it was prepared; "" for TFDS's own default.
            decode: Function that decodes an image file.

        Raises:
            UserError: As `open_records`, or the label is not a class.
        """
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
