"""Bundles that are damaged or contradict themselves, measured on this machine."""

import json
import pathlib
import shutil

import numpy as np

from convert.bundle import Bundle
from experiments.campaign.inputs.case import Build, Case

PART = "wrong bundles"
_LATENCY = "convert.latency {here}/bundle --out={here}/x"

# Texts in place of model.json.
_CARDS = {
    "an empty card": "",
    "a card that is cut short": '{"name": ',
    "a card that is a list": "[1]",
    "a card without fields": "{}",
}
# Fields of model.json with values that are wrong, or of another model.
_FIELDS = {
    "an unknown format": {"format": "onx"},
    "the format of another file": {"format": "litert"},
    "an unknown task": {"task": "detection"},
    "another task": {"task": "segmentation"},
    "an unknown precision": {"precision": "int4"},
    "an unknown output": {"output": "logitz"},
    "another output": {"output": "labels"},
    "an unknown layout": {"layout": "HWCN"},
    "another layout": {"layout": "NHWC"},
    "an unknown tail": {"tail": "softmax"},
    "another input size": {"input_size": [128, 128]},
    "an input size of one number": {"input_size": 32},
    "an input size of texts": {"input_size": ["a", "b"]},
    "a negative input size": {"input_size": [-64, 64]},
    "a mean that is nan": {"mean": [float("nan")] * 3},
    "two deviations": {"std": [1.0, 1.0]},
    "class names of other classes": {"class_names": ["a", "b"]},
    "class names that are a number": {"class_names": 3},
    "a field too many": {"colour": "red"},
}
# Content of a file of the bundle; None removes it.
_FILES = {
    "no model": ("model.onnx", None),
    "an empty model": ("model.onnx", b""),
    "a text as model": ("model.onnx", b"<html>404: not found</html>"),
    "a model of zeros": ("model.onnx", bytes(1000)),
    "no reference": ("reference.npz", None),
    "an empty reference": ("reference.npz", b""),
    "a text as reference": ("reference.npz", b"<html>404: not found</html>"),
}
_ARRAYS = {
    "a reference without output": {"input": np.zeros((1, 64, 64, 3), np.float32)},
    "a reference of another size": {
        "input": np.zeros((1, 16, 16, 3), np.float32),
        "expected": np.zeros((1, 8), np.float32),
    },
    "a reference of other classes": {
        "input": np.zeros((1, 64, 64, 3), np.float32),
        "expected": np.zeros((1, 5), np.float32),
    },
    "a reference of texts": {"input": np.array("a"), "expected": np.array("b")},
}


def cases() -> list[Case]:
    """Returns the wrong bundles."""
    found = [Case(PART, name, _LATENCY, _file("model.json", text.encode())) for name, text in _CARDS.items()]
    found += [Case(PART, name, _LATENCY, _fields(fields)) for name, fields in _FIELDS.items()]
    found += [Case(PART, name, _LATENCY, _file(*file)) for name, file in _FILES.items()]
    found += [Case(PART, name, _LATENCY, _arrays(arrays)) for name, arrays in _ARRAYS.items()]
    # An output that differs has a status of its own, and the results are written.
    return [*found, Case(PART, "a reference of another model", _LATENCY, _of_another_model, 1, ("x.",))]


def _file(name: str, content: bytes | None) -> Build:
    def build(here: pathlib.Path, made: pathlib.Path) -> None:
        shutil.copytree(made / "bundle", here / "bundle")
        (here / "bundle" / name).unlink()
        if content is not None:
            (here / "bundle" / name).write_bytes(content)

    return build


def _fields(fields: dict) -> Build:
    def build(here: pathlib.Path, made: pathlib.Path) -> None:
        shutil.copytree(made / "bundle", here / "bundle")
        path = here / "bundle/model.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return build


def _arrays(arrays: dict[str, np.ndarray]) -> Build:
    def build(here: pathlib.Path, made: pathlib.Path) -> None:
        shutil.copytree(made / "bundle", here / "bundle")
        np.savez(here / "bundle/reference.npz", **arrays)

    return build


def _of_another_model(here: pathlib.Path, made: pathlib.Path) -> None:
    """Copies the bundle and gives it another expected output, by its own functions: nothing is damaged."""
    shutil.copytree(made / "bundle", here / "bundle")
    bundle = Bundle.open(here / "bundle")
    image, expected = bundle.reference()
    bundle.write_reference(image, expected + 1)
    bundle.write_card()
