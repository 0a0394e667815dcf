"""coco/2017 as TensorFlow Datasets stores it; the test prepares a tiny version."""

import io
import pickle

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from seaformer_jax.data.detection import sources

# One object in the first image, a crowd and an object in the second, none in the third.
OBJECTS = [
    [(0.25, 0.5, 0.75, 1.0, 1, 450, False)],
    [(0.0, 0.0, 1.0, 1.0, 0, 900, True), (0.1, 0.1, 0.5, 0.6, 2, 300, False)],
    [],
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tfds = pytest.importorskip("tensorflow_datasets")

    class Coco(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """Has the features of TFDS's builder of this name that are read."""

        code_path = None  # Without importlib_resources, TFDS cannot find the source of a test module.
        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="2017")]  # noqa: RUF012

        def _info(self):
            objects = {
                "area": np.int64,
                "bbox": tfds.features.BBoxFeature(),
                "id": np.int64,
                "is_crowd": np.bool_,
                "label": tfds.features.ClassLabel(names=["ant", "bee", "cat"]),
            }
            features = {
                "image": tfds.features.Image(encoding_format="png"),
                "image/id": np.int64,
                "objects": tfds.features.Sequence(objects),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(), "validation": self._generate_examples()}

        def _generate_examples(self):
            for i, objects in enumerate(OBJECTS):
                buffer = io.BytesIO()
                Image.fromarray(np.full((40, 60, 3), i, np.uint8)).save(buffer, "png")
                rows = [
                    {"area": a, "bbox": tfds.features.BBox(*box), "id": n, "is_crowd": c, "label": k}
                    for n, (*box, k, a, c) in enumerate(objects)
                ]
                yield i, {"image": io.BytesIO(buffer.getvalue()), "image/id": 100 + i, "objects": rows}

    tfds.disable_progress_bar()
    data_dir = tmp_path_factory.mktemp("tfds")
    Coco(data_dir=data_dir, config="2017").download_and_prepare(file_format="array_record")
    return data_dir


def opened(folder, split: str) -> sources.Source:
    record = {"source": "tfds", "name": "coco/2017", "root": str(folder), "max_boxes": 5}
    return sources.create(ConfigDict(record | {"train_split": "train", "val_split": "validation"}), split)


def test_boxes_are_in_pixels(folder):
    source = pickle.loads(pickle.dumps(opened(folder, "train")))
    assert len(source) == 2 and source.labels.class_names == ("ant", "bee", "cat")
    found = {int(element["image"].flat[0]): element for element in (source[i] for i in range(2))}
    np.testing.assert_allclose(found[0]["boxes"], [[30, 10, 60, 30]])
    np.testing.assert_allclose(found[1]["boxes"], [[6, 4, 36, 20]])
    assert found[0]["labels"].tolist() == [1] and found[1]["labels"].tolist() == [2]
    assert source.size(0) == (40, 60)


def test_the_validation_has_all_images_and_crowds(folder):
    source = opened(folder, "val")
    assert len(source) == 3 and sorted(source.truth.image_ids) == [100, 101, 102]
    assert source.truth.crowd.sum() == 1 and source.truth.area.tolist().count(450) == 1
