"""Data sets that TensorFlow Datasets prepared for random access (ArrayRecord); no TensorFlow is needed.

Preparing, once and anywhere, may need TensorFlow: TFDS's imagenet2012, cityscapes and its `tfds` command do.
"""

import os
from collections.abc import Sequence

from seaformer_jax import errors
from seaformer_jax.data import files


def open_records(
    name: str, split: str, data_dir: str | os.PathLike, needed: Sequence[str]
) -> tuple[Sequence[dict], dict]:
    """Opens a prepared split; neither the code that made it nor the network is asked.

    Args:
        name: "imagenet2012", "name/config" or "name:version".
        split: a split of the data set, or a slice of one: "train[:90%]".
        data_dir: where it was prepared; "" for TFDS's own default.
        needed: features that it must have.

    Returns:
        The records, in which images are the bytes of their files, and the features by name.

    Raises:
        UserError: the package or the data set is missing, or it has no such split, features or random access.
    """
    try:
        import tensorflow_datasets as tfds

        builder = _builder(name, data_dir)
        features = builder.info.features
        if not set(needed) <= set(features):
            expected = " and ".join(repr(feature) for feature in needed)
            raise errors.UserError(f"{name} has the features {', '.join(features)}; expected {expected}")
        pictures = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
        return _open_split(
            builder, name, split, {key: tfds.decode.SkipDecoding() for key in pictures}
        ), features
    except ImportError as error:
        raise errors.UserError(
            f'data.source is tfds, but a package is missing ({error}): pip install "seaformer-jax[tfds]"'
        ) from error


def _builder(name: str, data_dir: str | os.PathLike):
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import read_only_builder

    folder = tfds.core.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
    try:
        return read_only_builder.builder_from_files(name, data_dir=folder)
    except tfds.core.DatasetNotFoundError as error:
        found = files.listing(folder) if folder.is_dir() else "no such folder"
        raise errors.UserError(
            f"data set {name!r} is not in data.root {folder} (found {found}); prepare it there with {_how(name)}"
        ) from error


def _open_split(builder, name: str, split: str, decoders: dict) -> Sequence[dict]:
    try:
        return builder.as_data_source(split, decoders=decoders)
    except NotImplementedError as error:
        raise errors.UserError(
            f"{name} is in {builder.data_dir} as {builder.info.file_format.value}, which has no random access; "
            f"prepare it in another data.root with {_how(name)}"
        ) from error
    except ValueError as error:  # An unknown split, or a slice that cannot be parsed.
        reason = str(error).splitlines()[0]
        raise errors.UserError(f"{name}: {reason} Correct data.train_split or data.val_split.") from error


def _how(name: str) -> str:
    return f"tfds.builder({name!r}, data_dir=...).download_and_prepare(file_format='array_record')"
