"""Sources: folders, TFDS data sets and the handling of broken files, on files that the tests write."""

import io
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from seaformer_jax import config, errors
from seaformer_jax.data import files, labels, shapes
from seaformer_jax.data import sources as shared_sources
from seaformer_jax.data.classification import sources
from seaformer_jax.data.classification.tfds import TFDS
from seaformer_jax.data.sources import SkipCorrupt, check_num_classes


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 5, 3), value, np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def read_in_new_process(source, index: int) -> tuple[str, bool]:
    """Reads an element in a process that has only the pickle; returns it and whether TensorFlow was imported."""
    code = (
        "import pickle, sys; e = pickle.load(sys.stdin.buffer)[%d]; "
        "print(e['image'].shape, e['image'].mean(), e['label'], 'tensorflow' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code % index],
        input=pickle.dumps(source),
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=True,
    )
    element, tensorflow = result.stdout.decode().strip().rsplit(" ", 1)
    return element, tensorflow == "True"


@pytest.fixture
def folder(tmp_path):
    files = {
        "train/cat/b.png": png(1),
        "train/cat/a.PNG": png(0),
        "train/cat/deep/er/c.JPEG": png(2),  # A PNG file: the content counts, not the extension.
        "train/cat/notes.txt": b"no image",
        "train/Zebra/naïve.png": png(3),
        "train/loose.png": png(9),
        "train_small/cat/x.png": png(4),
    }
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    return tmp_path


def test_image_folder(folder):
    (folder / "train/cat/linked").symlink_to(folder / "train_small/cat")
    source = sources.ImageFolder(folder, "train")
    assert source.labels == labels.LabelSpec(("Zebra", "cat"))  # Sorted by code point, as Python sorts.
    assert len(source) == 5
    found = [(element["image"].mean(), element["label"]) for element in source]
    assert found == [(3, 0), (0, 1), (1, 1), (2, 1), (4, 1)]
    assert type(source[0]["label"]) is int
    assert read_in_new_process(source, 0) == ("(4, 5, 3) 3.0 0", False)


def test_the_root_may_be_below_home(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert len(sources.ImageFolder(f"~/{folder.name}", "train")) == 4


def test_image_folder_order(tmp_path):
    """Images are sorted by path, in whatever order the file system lists them."""
    values = np.random.default_rng(0).permutation(40)
    for value in values:
        path = tmp_path / f"train/{value // 5:02d}/{value:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(value))
    source = sources.ImageFolder(tmp_path, "train")
    assert source.labels.class_names == tuple(f"{k:02d}" for k in range(8))
    assert [(e["image"].mean(), e["label"]) for e in source] == [(i, i // 5) for i in range(40)]


def test_links_are_followed_but_not_in_a_circle(tmp_path):
    """A link to a folder above it neither repeats images nor gives them the label of the link's folder."""
    for name in ("data/train/a/1.png", "data/train/b/2.png", "data/val/a/3.png", "elsewhere/4.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    train = tmp_path / "data/train"
    (train / "a/more").symlink_to(tmp_path / "elsewhere")
    for name, target in {"a/here": "a", "a/up": ".", "a/top": "..", "b/up": "."}.items():
        (train / name).symlink_to(train / target)
    (train / "b/itself").symlink_to("itself")
    (tmp_path / "elsewhere/back").symlink_to(train / "a")
    source = sources.ImageFolder(tmp_path / "data", "train")
    assert [os.path.basename(path) for path in files.image_files(train)] == ["1.png", "4.png", "2.png"]
    assert [source[i]["label"] for i in range(len(source))] == [0, 0, 1]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("photos [1]", ["a [2].png", "deep/b.png", "deep/deeper/c.PNG"]),
        ("photos [1]/*.png", ["a [2].png"]),
        ("photos [1]/a [2].png", ["a [2].png"]),
        ("photos [1]/**", ["a [2].png", "deep/b.png", "deep/deeper/c.PNG"]),
        ("photos [1]/**/*.png", ["a [2].png", "deep/b.png"]),
        ("photos [1]/d*/**/[bc].*", ["deep/b.png", "deep/deeper/c.PNG"]),
        ("p*/.hidden/*", [".hidden/d.png"]),
        ("photos [1]/none", []),
        ("none/**/*.png", []),
    ],
)
def test_patterns_of_images(tmp_path, pattern, expected):
    """Brackets in the name of a folder are no pattern, and two link loops do not multiply images."""
    for name in ("a [2].png", "deep/b.png", "deep/deeper/c.PNG", ".hidden/d.png", ".e.png", "f.txt"):
        path = tmp_path / "photos [1]" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (tmp_path / "photos [1]/deep/folder.png").mkdir()
    for name in ("one", "two"):
        (tmp_path / "photos [1]" / name).symlink_to(tmp_path / "photos [1]")
    found = files.matching_images(str(tmp_path / pattern))
    assert found == [tmp_path / "photos [1]" / name for name in expected]


def test_image_folder_names_broken_files(folder):
    path = folder / "train/cat/b.png"
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(errors.CorruptImageError, match=f"^{path}: "):
        sources.ImageFolder(folder, "train")[2]


def test_image_folder_errors(folder):
    with pytest.raises(errors.UserError, match=r"data.root is empty"):
        sources.ImageFolder("", "train")
    with pytest.raises(errors.UserError, match="nowhere': no such folder"):
        sources.ImageFolder(folder / "nowhere", "train")
    with pytest.raises(errors.UserError, match=r"no folder 'val' \(found train/, train_small/\)"):
        sources.ImageFolder(folder, "val")
    with pytest.raises(errors.UserError, match=r"no class folders \(found x.png\)"):
        sources.ImageFolder(folder / "train_small", "cat")
    for name in ("a_empty", "b_text"):
        (folder / "train" / name).mkdir()
    (folder / "train/b_text/notes.txt").write_text("no image")
    with pytest.raises(errors.UserError, match=r"no image in 2 of 4 class folders \(a_empty, b_text\)"):
        sources.ImageFolder(folder, "train")


def test_long_listings_are_cut(tmp_path):
    assert files.some(list("abcdefgh")) == "a, b, c, d, e, f, g, h"
    assert files.some(list("abcdefghi")) == "a, b, c, d, e, f, g, h and 1 more"
    for i in range(12):
        (tmp_path / f"{i:02d}.png").touch()
    (tmp_path / "none").mkdir()
    with pytest.raises(errors.UserError, match=r"found 00.png, .*, 07.png and 5 more"):
        sources.ImageFolder(tmp_path, "val")
    with pytest.raises(errors.UserError, match="found nothing"):
        sources.ImageFolder(tmp_path, "none")


@pytest.fixture(scope="module")
def tfds():
    return pytest.importorskip("tensorflow_datasets")


@pytest.fixture(scope="module")
def tfds_dir(tfds, tmp_path_factory):
    """Prepares two data sets; in tiny_photos, image i has the value 10 * i, and the last of "test" is truncated."""

    class TinyPhotos(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        code_path = None  # Without importlib_resources, TFDS cannot find the source of a test module.
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            label = tfds.features.ClassLabel(names=["zebra", "cat"])
            features = tfds.features.FeaturesDict({"image": tfds.features.Image(), "label": label})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(6), "test": self._generate_examples(2, broken=1)}

        def _generate_examples(self, count, broken=None):
            for i in range(count):
                content = png(10 * i)[: 50 if i == broken else None]
                yield i, {"image": io.BytesIO(content), "label": i % 2}

    class TinyNumbers(TinyPhotos):
        def _info(self):
            features = tfds.features.FeaturesDict({"number": tfds.features.Scalar(np.int64)})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _generate_examples(self, count, broken=None):
            yield from ((i, {"number": i}) for i in range(count))

    tfds.disable_progress_bar()
    data_dir = tmp_path_factory.mktemp("tfds")
    for builder in (TinyPhotos, TinyNumbers):
        builder(data_dir=data_dir).download_and_prepare(file_format="array_record")
    return data_dir


def test_tfds(tfds_dir):
    source = TFDS("tiny_photos", "train", tfds_dir)
    assert source.labels == labels.LabelSpec(("zebra", "cat"))
    assert len(source) == 6
    elements = [source[i] for i in range(6)]
    assert sorted((e["image"].mean(), e["label"]) for e in elements) == [(10 * i, i % 2) for i in range(6)]
    assert elements[0]["image"].shape == (4, 5, 3)
    assert type(elements[0]["label"]) is int
    assert len(TFDS("tiny_photos", "train[:50%]", tfds_dir)) == 3


def test_tfds_needs_no_tensorflow_nor_the_code(tfds_dir):
    source = TFDS("tiny_photos:1.0.0", "train", tfds_dir)
    element = source[3]
    expected = f"(4, 5, 3) {element['image'].mean()} {element['label']}"
    assert read_in_new_process(source, 3) == (expected, False)


def test_tfds_names_broken_records(tfds_dir):
    source = TFDS("tiny_photos", "test", tfds_dir)
    broken = [i for i in range(2) if SkipCorrupt(source, "skip")[i]["skipped"]]
    assert len(broken) == 1
    with pytest.raises(errors.CorruptImageError, match=rf"^tiny_photos/test\[{broken[0]}\]: "):
        source[broken[0]]


def test_tfds_errors(tfds_dir, monkeypatch):
    prepare = r"prepare it there with tfds.builder\('tiny_phots', .*download_and_prepare\(file_format="
    with pytest.raises(errors.UserError, match=f"'tiny_phots' is not in .*tiny_photos/.*{prepare}"):
        TFDS("tiny_phots", "train", tfds_dir)
    with pytest.raises(errors.UserError, match=r"nowhere \(found no such folder\)"):
        TFDS("tiny_photos", "train", tfds_dir / "nowhere")
    with pytest.raises(errors.UserError, match=r"'val'. Should be one of \['.*Correct data.train_split"):
        TFDS("tiny_photos", "val", tfds_dir)
    with pytest.raises(errors.UserError, match=r"train\[:5"):
        TFDS("tiny_photos", "train[:5", tfds_dir)
    with pytest.raises(errors.UserError, match="has the features number; expected 'image' and 'label'"):
        TFDS("tiny_numbers", "train", tfds_dir)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(errors.UserError, match=r'pip install "seaformer-jax\[tfds\]"'):
        TFDS("tiny_photos", "train", tfds_dir)


TFDS_DAMAGE = {
    "dataset_info.json": ("", '{"a": ', "[1]", "{}", None),
    "features.json": ("", '{"a": ', "[1]", "{}"),
    "tiny_photos-train.array_record-00000-of-00001": ("", "damaged", None),
}


@pytest.mark.parametrize(
    ("name", "content"), [(name, content) for name, contents in TFDS_DAMAGE.items() for content in contents]
)
def test_damaged_tfds_folders(tfds_dir, tmp_path, name, content):
    shutil.copytree(tfds_dir / "tiny_photos", tmp_path / "tiny_photos")
    file = tmp_path / "tiny_photos/1.0.0" / name
    file.unlink() if content is None else file.write_text(content)
    if name.endswith(".json"):
        says = r"^the description of the data set 'tiny_photos' in .* is damaged \(\w+: .*\); prepare it again with"
        with pytest.raises(errors.UserError, match=says):
            TFDS("tiny_photos", "train", tmp_path)
        return
    source = TFDS("tiny_photos", "train", tmp_path)
    with pytest.raises(errors.CorruptImageError, match=r"^tiny_photos/train\[0\]: the record cannot be read"):
        source[0]


def test_tfds_without_random_access(tfds_dir, tmp_path):
    stored = tfds_dir / "tiny_photos/1.0.0"
    target = tmp_path / "tiny_photos/1.0.0"
    target.mkdir(parents=True)
    for name in ("dataset_info.json", "features.json", "label.labels.txt"):
        text = (stored / name).read_text().replace('"array_record"', '"tfrecord"')
        (target / name).write_text(text)
    with pytest.raises(
        errors.UserError, match="as tfrecord, which has no random access; prepare it in another"
    ):
        TFDS("tiny_photos", "train", tmp_path)


class Broken:
    """Ten elements whose images hold their index; those in `broken` cannot be decoded."""

    labels = labels.LabelSpec(("a", "b"))

    def __init__(self, *broken):
        self.broken = broken

    def __len__(self):
        return 10

    def __getitem__(self, index):
        if index in self.broken:
            raise errors.CorruptImageError(f"{index}.jpg: truncated")
        return {"image": np.full((2, 2, 3), index, np.uint8), "label": index % 2}


@pytest.fixture
def warned(monkeypatch):
    lines = []
    monkeypatch.setattr(shared_sources.logging, "warning", lambda text, *args: lines.append(text % args))
    return lines


def test_guard_error(warned):
    guard = SkipCorrupt(Broken(2), "error")
    assert len(guard) == 10 and guard.labels.class_names == ("a", "b")
    assert guard[1]["skipped"] == 0 and guard[1]["label"] == 1
    with pytest.raises(errors.CorruptImageError, match=r"2.jpg: truncated"):
        guard[2]
    assert not warned


@pytest.mark.parametrize(("index", "image", "skipped"), [(1, 1, 0), (2, 4, 2), (3, 4, 1), (9, 0, 1)])
def test_guard_skip(index, image, skipped, warned):
    element = SkipCorrupt(Broken(2, 3, 9), "skip")[index]
    assert (element["image"] == image).all() and element["label"] == image % 2
    assert element["skipped"] == skipped
    broken = [(index + k) % 10 for k in range(skipped)]
    assert warned == [f"skipped a broken image: {k}.jpg: truncated" for k in broken]


def test_guard_blank(warned):
    guard = SkipCorrupt(Broken(3), "skip", replace=False)
    element = guard[3]
    assert element["image"].shape == (32, 32, 3) and element["image"].dtype == np.uint8
    assert not element["image"].any()
    assert (element["label"], element["skipped"]) == (0, 1)
    assert len(warned) == 1
    assert guard[4]["skipped"] == 0 and (guard[4]["image"] == 4).all()


def test_guard_gives_up(warned):
    with pytest.raises(errors.UserError, match="none of the 10 images"):
        SkipCorrupt(Broken(*range(10)), "skip")[4]
    assert len(warned) == 10


def test_guard_does_not_hide_unreadable_files(folder):
    guard = SkipCorrupt(sources.ImageFolder(folder, "train"), "skip")
    (folder / "train/cat/b.png").unlink()
    with pytest.raises(errors.UserError, match=r"b.png: cannot be read: No such file"):
        guard[2]


def test_guard_policy():
    with pytest.raises(
        errors.UserError, match=r"'skipp'; expected one of error, skip. Did you mean 'skip'\?"
    ):
        SkipCorrupt(Broken(), "skipp")


def data_config(**changes):
    data = config.default().data
    data.update(changes)
    return data


def test_create_shapes():
    data = data_config(image_size=32, train_size=5, val_size=3)
    train, val = sources.create(data, "train"), sources.create(data, "val")
    assert (len(train), len(val)) == (5, 3)
    np.testing.assert_array_equal(val[1]["image"], shapes.Shapes("val", 3, 32)[1]["image"])


def test_create_folder_and_tfds(folder, tfds_dir):
    data = data_config(source="folder", root=str(folder), val_split="train_small")
    assert (len(sources.create(data, "train")), len(sources.create(data, "val"))) == (4, 1)
    data = data_config(source="tfds", root=str(tfds_dir), name="tiny_photos", val_split="test")
    assert (len(sources.create(data, "train")), len(sources.create(data, "val"))) == (6, 2)


def test_create_unknown():
    with pytest.raises(
        errors.UserError, match=r"'shape'; expected one of shapes, folder, records, tfds. Did you mean"
    ):
        sources.create(data_config(source="shape"), "train")


def test_check_num_classes():
    check_num_classes(Broken(), 2)
    expected = r"2 classes \('a' to 'b'\), but task.num_classes is 10; set --config.task.num_classes=2"
    with pytest.raises(errors.UserError, match=expected):
        check_num_classes(Broken(), 10)
    with pytest.raises(errors.UserError, match="is 1; set"):
        check_num_classes(Broken(), 1)
