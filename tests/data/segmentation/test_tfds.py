"""scene_parse150 and cityscapes as TensorFlow Datasets stores them; the tests prepare tiny versions."""

import io
import pickle
import zipfile

import numpy as np
import pytest
from absl import logging
from ml_collections import ConfigDict
from PIL import Image

from seaformer_jax import errors
from seaformer_jax.data.segmentation import ade20k_archive as archives
from seaformer_jax.data.segmentation import sources
from seaformer_jax.data.segmentation import tfds as segmentation_tfds

SIZE = {"scene_parse150": (5, 7), "cityscapes": (4, 8)}  # Height, width.
# Channels: category, number of the object, 0.
OBJECTS = np.array([[[0, 0, 0], [1, 1, 0], [4, 2, 0], [4, 3, 0], [100, 4, 0]]] * 5, np.uint8)


def stored(array: np.ndarray) -> io.BytesIO:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "png")
    return io.BytesIO(buffer.getvalue())


def picture(name: str, value: int) -> io.BytesIO:
    return stored(np.full((*SIZE[name], 3), value, np.uint8))


def mask(name: str, values) -> np.ndarray:
    return np.resize(np.array(values, np.uint8), SIZE[name])


@pytest.fixture(scope="module")
def tfds():
    return pytest.importorskip("tensorflow_datasets")


@pytest.fixture(scope="module")
def tfds_dir(tfds, tmp_path_factory):
    class SceneParse150(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """Has the features of TFDS's builder of this name."""

        code_path = None  # Without importlib_resources, TFDS cannot find the source of a test module.
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(encoding_format="png"),
                "annotation": tfds.features.Image(encoding_format="png"),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            whole = mask("scene_parse150", [0, 1, 150])
            train = [np.pad(OBJECTS, ((0, 0), (0, 2), (0, 0))), np.repeat(whole[..., None], 3, 2), whole]
            wrong = [mask("scene_parse150", [151]), whole.T]
            return {"train": self._generate_examples(train), "test": self._generate_examples(wrong)}

        def _generate_examples(self, annotations):
            for i, annotation in enumerate(annotations):
                yield i, {"image": picture("scene_parse150", i), "annotation": stored(annotation)}

    class Cityscapes(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        code_path = None  # Without importlib_resources, TFDS cannot find the source of a test module.
        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="semantic_segmentation")]  # noqa: RUF012

        def _info(self):
            features = {
                "image_id": tfds.features.Text(),
                "image_left": tfds.features.Image(shape=(*SIZE["cityscapes"], 3), encoding_format="png"),
                "segmentation_label": tfds.features.Image(
                    shape=(*SIZE["cityscapes"], 1), encoding_format="png", use_colormap=True
                ),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(2), "validation": self._generate_examples(1)}

        def _generate_examples(self, count):
            for i in range(count):
                label = stored(mask("cityscapes", [7, 33, 0, 11 + i]))
                image = picture("cityscapes", i)
                yield i, {"image_id": str(i), "image_left": image, "segmentation_label": label}

    tfds.disable_progress_bar()
    data_dir = tmp_path_factory.mktemp("tfds")
    for builder in (SceneParse150, Cityscapes):
        builder(data_dir=data_dir).download_and_prepare(file_format="array_record")
    return data_dir


def by_image(source) -> dict:
    """Returns the elements by the value of their image, because TFDS shuffles them."""
    elements = [source[i] for i in range(len(source))]
    return {int(element["image"].flat[0]): element for element in elements}


def create(tfds_dir, name: str, split: str, **changes):
    record = {"source": "tfds", "name": name, "root": str(tfds_dir), "train_split": split, **changes}
    return sources.create(ConfigDict(record), "train")


def test_scene_parse150(tfds_dir):
    source = pickle.loads(pickle.dumps(create(tfds_dir, "scene_parse150", "train")))
    assert len(source) == 3 and source.labels.num_classes == 150
    elements = by_image(source)
    names = source.labels.class_names
    objects = elements[0]["label"]
    assert [None if k == 255 else names[k] for k in objects[2, :5]] == [
        None,
        "bed",
        "person",
        "person",
        "flag",
    ]
    for i in (1, 2):
        np.testing.assert_array_equal(elements[i]["label"], mask("scene_parse150", [255, 0, 149]))
        assert elements[i]["image"].shape == (5, 7, 3)
    assert [source.size(i) for i in range(3)] == [(5, 7)] * 3


def test_scene_parse150_errors(tfds_dir):
    source = create(tfds_dir, "scene_parse150", "test")
    messages = []
    for i in range(2):
        with pytest.raises(errors.UserError, match=rf"^scene_parse150/test\[{i}\] annotation: ") as error:
            source[i]
        messages.append(str(error.value))
    assert any("holds 151; expected 1..150" in message for message in messages)
    assert any(
        "the mask is 5 x 7 pixels, but its image scene_parse150/test[" in message for message in messages
    )


@pytest.mark.parametrize("name", ["cityscapes", "cityscapes/semantic_segmentation:1.0.0"])
def test_cityscapes(tfds_dir, name):
    source = create(tfds_dir, name, "train")
    elements = by_image(source)
    assert len(source) == 2 and source.labels.num_classes == 19
    assert elements[0]["label"][0, :4].tolist() == [0, 18, 255, 2]
    assert elements[1]["label"][3, 4:].tolist() == [0, 18, 255, 3]
    assert len(create(tfds_dir, name, "validation")) == 1


def test_a_size_that_all_share_needs_no_record(tfds_dir, monkeypatch):
    source = create(tfds_dir, "cityscapes", "train")
    monkeypatch.setattr(source, "_records", None)
    assert source.size(1) == (4, 8)


def test_errors(tfds_dir, tmp_path):
    with pytest.raises(errors.UserError, match=r"data.name is 'cityscape'; .* Did you mean 'cityscapes'"):
        create(tfds_dir, "cityscape", "train")
    with pytest.raises(errors.UserError, match=r"'cityscapes' is not in data.root .*prepare it there"):
        create(tmp_path, "cityscapes", "train")
    with pytest.raises(errors.UserError, match=r"'val'.*Correct data.train_split"):
        create(tfds_dir, "cityscapes", "val")


def test_other_features(tfds_dir, monkeypatch):
    monkeypatch.setitem(segmentation_tfds._FEATURES, "cityscapes", ("image_left", "disparity_map"))
    with pytest.raises(errors.UserError, match=r"expected 'image_left' and 'disparity_map'"):
        create(tfds_dir, "cityscapes", "train")


def write_archive(path):
    """Writes a small archive in the layout of ADEChallengeData2016.zip."""
    with zipfile.ZipFile(path, "w") as content:
        for split, count in (("training", 3), ("validation", 2)):
            for i in range(count):
                name = f"ADE_{split}_{i}"
                annotation = stored(mask("scene_parse150", [0, 1, 150 - i])).getvalue()
                image = picture("scene_parse150", i).getvalue()
                content.writestr(f"ADEChallengeData2016/images/{split}/{name}.jpg", image)
                content.writestr(f"ADEChallengeData2016/annotations/{split}/{name}.png", annotation)
    return path


def test_the_official_archive_has_all_classes(tfds, tmp_path, caplog):
    counts = archives.prepare(write_archive(tmp_path / "a.zip"), tmp_path / "data")
    assert counts == {"train": 3, "test": 2}
    for split, count in counts.items():
        elements = by_image(create(tmp_path / "data", "scene_parse150", split))
        assert sorted(elements) == list(range(count))
        for i, element in elements.items():
            np.testing.assert_array_equal(element["label"], mask("scene_parse150", [255, 0, 149 - i]))
    assert "countable" not in caplog.text
    with pytest.raises(errors.UserError, match="scene_parse150 exists; remove it"):
        archives.prepare(tmp_path / "a.zip", tmp_path / "data")


def test_what_is_not_the_archive_is_refused(tfds, tmp_path):
    (tmp_path / "text.zip").write_text("no zip file")
    whole, part = write_archive(tmp_path / "whole.zip"), tmp_path / "part.zip"
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(part, "w") as target:
        for name in source.namelist()[:-1]:
            target.writestr(name, source.read(name))
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
        other.writestr("readme.txt", "")
    for name, message in (
        ("absent.zip", "cannot be read as a zip file: .*No such file"),
        ("text.zip", "cannot be read as a zip file"),
        (
            "part.zip",
            r"lacks 1 masks, e\.g\. ADEChallengeData2016/annotations/validation/ADE_validation_1\.png",
        ),
        ("other.zip", r"lacks ADEChallengeData2016/images/training/\*\.jpg; expected the official"),
    ):
        with pytest.raises(errors.UserError, match=message):
            archives.prepare(tmp_path / name, tmp_path / "data")


def test_masks_of_countable_objects_are_announced(tfds_dir, monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "warning", lambda text, *args: lines.append(text % args))
    monkeypatch.setattr(segmentation_tfds, "_is_of_objects", lambda raw: True)
    create(tfds_dir, "scene_parse150", "train")
    assert "labels only the 100 countable classes" in lines[0]
    monkeypatch.undo()
    assert segmentation_tfds._is_of_objects(OBJECTS)
    assert not segmentation_tfds._is_of_objects(np.repeat(OBJECTS[..., :1], 3, 2))
    assert not segmentation_tfds._is_of_objects(OBJECTS[..., 0])
