"""Turns the official archive of ADE20K's 150 classes into a data set as TensorFlow Datasets prepares them.

TFDS's own `scene_parse150` has the masks of an instance segmentation challenge, which number only the 100 countable
classes: no wall, no sky, no road. The archive `ADEChallengeData2016.zip` has all 150. The result is read by the same
recipe, `--config.data.source=tfds`, from a few large files.
"""

import io
import pathlib
import zipfile
from collections.abc import Iterator

from seaformer_jax.errors import UserError

_ROOT = "ADEChallengeData2016"
_SPLITS = {"train": "training", "test": "validation"}  # TFDS's names, which the recipe uses -> the archive's.


def prepare(archive: pathlib.Path, data_dir: pathlib.Path) -> dict[str, int]:
    """Writes the data set `scene_parse150` into `data_dir`, as ArrayRecord files.

    Args:
        archive: The file ADEChallengeData2016.zip.
        data_dir: The `data.root` of runs that are to read it; it must not have a `scene_parse150` yet.
    Returns:
        Split -> number of images.
    Raises:
        UserError: The archive is missing, damaged or another one, the folder has such a data set, or
            tensorflow_datasets is not installed.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(f'a package is missing ({error}): pip install "seaformer-jax[tfds]"') from error
    if (found := data_dir / "scene_parse150").exists():
        raise UserError(f"{found} exists; remove it, or choose another folder")
    try:
        with zipfile.ZipFile(archive) as content:
            pairs = {split: _pairs(content, folder, archive) for split, folder in _SPLITS.items()}
            builder = _builder(tfds, content, pairs, data_dir)
            builder.download_and_prepare(file_format="array_record")
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{archive} cannot be read as a zip file: {error}; expected {_ROOT}.zip") from error
    return {split: len(members) for split, members in pairs.items()}


def _pairs(content: zipfile.ZipFile, folder: str, archive: pathlib.Path) -> list[tuple[str, str]]:
    """Returns the names of all images of a split with those of their masks; UserError if one is missing."""
    names = set(content.namelist())
    images = sorted(n for n in names if n.startswith(f"{_ROOT}/images/{folder}/") and n.endswith(".jpg"))
    masks = [n.replace("/images/", "/annotations/").removesuffix("jpg") + "png" for n in images]
    missing = [mask for mask in masks if mask not in names]
    if missing or not images:
        lacking = f"{len(missing)} masks, e.g. {missing[0]}" if missing else f"{_ROOT}/images/{folder}/*.jpg"
        raise UserError(f"{archive} lacks {lacking}; expected the official {_ROOT}.zip")
    return list(zip(images, masks, strict=True))


def _builder(tfds, content: zipfile.ZipFile, pairs: dict[str, list[tuple[str, str]]], data_dir: pathlib.Path):
    class SceneParse150(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """ADE20K with the masks of all 150 classes (0: other)."""

        code_path = None
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(encoding_format="jpeg"),
                "annotation": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(members) for split, members in pairs.items()}

        def _generate_examples(self, members) -> Iterator[tuple[str, dict]]:
            for image, mask in members:
                files = {"image": image, "annotation": mask}
                yield image, {key: io.BytesIO(content.read(name)) for key, name in files.items()}

    return SceneParse150(data_dir=data_dir)
