"""Bundles: they read back as written, and a bundle is written completely or not at all."""

import dataclasses
import errno
import json
import math
import os

import numpy as np
import pytest

from convert import bundle_folder
from convert.bundle import Bundle
from seaformer_jax.errors import UserError


def make(folder, **changes) -> Bundle:
    fields = {
        "task": "segmentation",
        "name": "seaformer_tiny",
        "format": "litert",
        "precision": "fp32",
        "output": "logits8",
        "tail": "argmax_upsample",
        "input_size": (64, 96),
        "input_type": "float32",
        "dynamic_batch": False,
        "tensors": {"input": "image", "output": "logits8"},
        "preprocessing": {"resize": "stretch", "crop_fraction": 1.0, "interpolation": "bilinear"},
        "layout": "NHWC",
        "output_layout": "NHWC",
        "normalized_inside": False,
        "mean": (0.5, 0.4, 0.3),
        "std": (0.2, 0.2, 0.1),
        "class_names": ("road", "sky"),
        "palette": ((1, 2, 3), (4, 5, 6)),
        "masks": {"ignore_label": 255, "reduce_zero_label": False, "id_map": ((0, 1), (7, 0))},
        "licence": "MIT",
        "score": {"metric": "mIoU", "percent": 60.5, "images": 101},
        "decoding": {},
        "source": {"file": "m.pth", "sha256": "00"},
        "versions": {"jax": "0.10.2", "torch": None},
    }
    return Bundle(folder, **(fields | changes))


def test_bundle_is_read_as_it_was_written(tmp_path):
    made = make(tmp_path)
    rng = np.random.default_rng(0)
    image, expected = rng.random((1, 64, 96, 3), np.float32), rng.random((1, 8, 12, 2), np.float32)
    made.write_reference(image, expected)
    made.write_card()
    found = Bundle.open(tmp_path)
    assert found == made
    for array, written in zip(found.reference(), (image, expected), strict=True):
        np.testing.assert_array_equal(array, written)


@pytest.mark.parametrize(
    "changes",
    [{"task": "classification"}, {"input_size": [32, 32]}, {"class_names": 3}, {"mean": [math.nan] * 3}],
    ids=lambda changes: next(iter(changes)),
)
def test_a_card_that_was_edited_is_refused(tmp_path, changes):
    make(tmp_path).write_card()
    card = tmp_path / "model.json"
    card.write_text(json.dumps(json.loads(card.read_text())))  # Another layout of the file is no other card.
    assert Bundle.open(tmp_path) == make(tmp_path)
    card.write_text(json.dumps(json.loads(card.read_text()) | changes))
    with pytest.raises(UserError, match=r"model\.json was damaged or edited: its checksum differs; export"):
        Bundle.open(tmp_path)


def test_bundle_knows_its_files(tmp_path):
    for name, size in (
        ("model.ncnn.param", 7),
        ("model.ncnn.bin", 11),
        ("model.json", 100),
        ("report.md", 3),
    ):
        (tmp_path / name).write_bytes(bytes(size))
    made = make(tmp_path, format="ncnn")
    assert (made.model.name, made.size()) == ("model.ncnn.param", 18)


def test_a_model_that_is_a_folder(tmp_path):
    """Core ML's: all its files count and have checksums."""
    weights = tmp_path / "model.mlpackage/Data/weights/weight.bin"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    (tmp_path / "model.mlpackage/Manifest.json").write_bytes(b"{}")
    made = make(tmp_path, format="coreml")
    made.write_card()
    assert (Bundle.open(tmp_path).model.name, made.size()) == ("model.mlpackage", 9)
    weights.write_bytes(b"weighty")
    with pytest.raises(UserError, match=r"Data/weights/weight\.bin was damaged or edited"):
        Bundle.open(tmp_path)


def test_normalization_is_the_callers_unless_the_model_has_it(tmp_path):
    assert make(tmp_path).normalization == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
    assert make(tmp_path, normalized_inside=True).normalization is None


@pytest.mark.parametrize("tail", ["argmax_upsample", "decode_boxes", ""])
def test_tail_travels_as_source(tmp_path, tail):
    make(tmp_path, tail=tail).copy_tail()
    assert {path.name for path in tmp_path.iterdir()} == ({f"{tail}.h", f"{tail}.c"} if tail else set())
    if tail:
        assert f" {tail}(" in (tmp_path / f"{tail}.h").read_text()
        assert (tmp_path / f"{tail}.c").stat().st_size > 1000


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is no bundle: model.json is missing or damaged"),
        ('{"task": ', "is no bundle"),
        ("[1]", "is no bundle"),
        (
            '{"task": "segmentation"}',
            "another version of this project .fields class_names, decoding, dynamic_batch, format",
        ),
    ],
)
def test_what_is_no_bundle_is_said_to_be_none(tmp_path, content, said):
    if content is not None:
        (tmp_path / "model.json").write_text(content)
    with pytest.raises(UserError, match=said):
        Bundle.open(tmp_path)


def test_damaged_reference_is_told(tmp_path):
    make(tmp_path).write_reference(np.zeros(3), np.zeros(2))
    content = (tmp_path / "reference.npz").read_bytes()
    (tmp_path / "reference.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"reference\.npz is missing or damaged"):
        make(tmp_path).reference()


def test_writing_leaves_the_whole_bundle(tmp_path):
    with bundle_folder.writing(tmp_path / "deep" / "b") as folder:
        make(folder).write_card()
        assert not (tmp_path / "deep" / "b").exists()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["b"]
    assert Bundle.open(tmp_path / "deep" / "b").folder.name == "b"


def test_writing_that_fails_leaves_what_was_there(tmp_path):
    out = tmp_path / "b"
    for precision in ("fp32", "fp16"):  # The second replaces the first.
        with bundle_folder.writing(out) as folder:
            make(folder, precision=precision).write_card()
    assert Bundle.open(out).precision == "fp16"
    for fails_into in (out, tmp_path / "new"):
        with pytest.raises(RuntimeError), bundle_folder.writing(fails_into) as folder:
            make(folder).write_card()
            raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert Bundle.open(out).precision == "fp16"


def test_other_peoples_folders_are_not_replaced(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("a")
    (tmp_path / "file").write_text("a")
    for name, said in (
        ("photos", "holds files other than a bundle"),
        ("file", "is a file"),
        (
            "file/b",
            "cannot write to --out .*/file/b: .*/file is no folder to write into; choose another folder",
        ),
    ):
        with pytest.raises(UserError, match=said), bundle_folder.writing(tmp_path / name):
            pytest.fail("nothing may be written")
    assert (tmp_path / "photos" / "a.jpg").read_text() == "a"


def test_card_holds_every_field_but_the_folder(tmp_path):
    make(tmp_path).write_card()
    names = {field.name for field in dataclasses.fields(Bundle)}
    assert json.loads((tmp_path / "model.json").read_text()).keys() == names - {"folder"} | {"checksums"}


@pytest.mark.parametrize("name", ["model.ncnn.param", "model.ncnn.bin", "reference.npz"])
def test_a_damaged_file_is_told(tmp_path, name):
    made = make(tmp_path, format="ncnn")
    for file in ("model.ncnn.param", "model.ncnn.bin"):
        (tmp_path / file).write_bytes(b"network")
    made.write_reference(np.zeros(3), np.zeros(2))
    made.write_card()
    content = bytearray((tmp_path / name).read_bytes())
    content[-1] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(
        UserError, match=rf"{name} was damaged or edited: its checksum differs; export the model again"
    ):
        Bundle.open(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=rf"{name} cannot be read: No such file"):
        Bundle.open(tmp_path)


def test_a_disk_that_is_full_is_one_line_and_leaves_nothing(tmp_path):
    said = f"^cannot write to --out {tmp_path}/b: No space left on device; choose another folder$"
    with pytest.raises(UserError, match=said), bundle_folder.writing(tmp_path / "b"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_read_only_is_found_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle_folder.os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(UserError, match=f"cannot write to --out .*: {tmp_path} is no folder to write into"):
        bundle_folder.check_out(tmp_path / "deep" / "b")
    assert not list(tmp_path.iterdir())
