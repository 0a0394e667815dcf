"""Opens data sets that TensorFlow Datasets prepared for random access (ArrayRecord), without TensorFlow.

Preparing a data set is done once, on any machine. It may need TensorFlow: TFDS's imagenet2012, cityscapes and its
`tfds` command do.
"""

import os
from collections.abc import Sequence

from seaformer_jax import errors, paths
from seaformer_jax.data import files


def open_records(
    name: str, split: str, data_dir: str | os.PathLike, needed: Sequence[str]
) -> tuple[Sequence[dict], dict]:
    """Opens a prepared split; this needs neither the code of the data set nor the network.

    Args:
        name: "imagenet2012", "name/config" or "name:version".
        split: A split of the data set, or a slice of one: "train[:90%]".
        data_dir: Folder where it was prepared; "" for TFDS's own default.
        needed: Names of the features that it must have.

    Returns:
        The records, in which images are the bytes of their files, and the features by name.

    Raises:
        UserError: The package or the data set is missing, the data set is damaged, or it does not have the split, the
            features or random access.
    """
    if paths.in_bucket(data_dir):
        raise errors.UserError(
            f"data.root {data_dir}: data.source tfds opens local files only; copy the data set, or mount the bucket"
        )
    try:
        import tensorflow_datasets as tfds

        builder = _builder(name, data_dir)
        features = builder.info.features
        if not set(needed) <= set(features):
            expected = " and ".join(repr(feature) for feature in needed)
            raise errors.UserError(f"{name} has the features {', '.join(features)}; expected {expected}")
        # Images stay encoded: the sources decode them as they decode files.
        pictures = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
        records = _open_split(builder, name, split, {key: tfds.decode.SkipDecoding() for key in pictures})
        return _Records(records, f"{name}/{split}"), features
    except ImportError as error:
        raise errors.UserError(
            f'data.source is tfds, but a package is missing ({error}): pip install "seaformer-jax[tfds]"'
        ) from error


class _Records:
    """The records of a split. One that cannot be read is a CorruptImageError, as an image that cannot be decoded."""

    def __init__(self, records: Sequence[dict], name: str):
        self._records, self._name = records, name

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict:
        try:
            return self._records[index]
        except Exception as error:  # A damaged file raises whatever the damage leads to.
            raise errors.CorruptImageError(
                f"{self._name}[{index}]: the record cannot be read ({errors.summary(error)}); prepare the data set "
                "again"
            ) from error


def _builder(name: str, data_dir: str | os.PathLike):
    """Returns a builder that reads the prepared files; UserError if there are none."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import read_only_builder

    folder = tfds.core.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
    try:
        return read_only_builder.builder_from_files(name, data_dir=folder)
    except tfds.core.DatasetNotFoundError as error:
        found = files.listing(folder) if folder.is_dir() else "no such folder"
        raise errors.UserError(
            f"data set {name!r} is not in data.root {folder} (found {found}); prepare it there with "
            f"{_how_to_prepare(name)}"
        ) from error
    except Exception as error:  # A damaged description raises whatever the damage leads to.
        raise errors.UserError(
            f"the description of the data set {name!r} in data.root {folder} is damaged ({errors.summary(error)}); "
            f"prepare it again with {_how_to_prepare(name)}"
        ) from error


def _open_split(builder, name: str, split: str, decoders: dict) -> Sequence[dict]:
    """Opens a split for random access; UserError if its file format or its name does not allow that."""
    try:
        return builder.as_data_source(split, decoders=decoders)
    except NotImplementedError as error:
        raise errors.UserError(
            f"{name} is in {builder.data_dir} as {builder.info.file_format.value}, which has no random access; "
            f"prepare it in another data.root with {_how_to_prepare(name)}"
        ) from error
    except ValueError as error:  # An unknown split, or a slice that cannot be parsed.
        reason = str(error).splitlines()[0]
        raise errors.UserError(f"{name}: {reason} Correct data.train_split or data.val_split.") from error


def _how_to_prepare(name: str) -> str:
    """Returns the call that prepares the data set for random access, for error messages."""
    return f"tfds.builder({name!r}, data_dir=...).download_and_prepare(file_format='array_record')"
