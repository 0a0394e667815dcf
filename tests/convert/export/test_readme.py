"""The README of a bundle: its programs run as they stand, and give what PyTorch gives."""

import dataclasses
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from convert import bundle_folder, torch_model, torch_segmentation
from convert.bundle import NATIVE, Bundle
from convert.export import preparation, readme, sample_cpp, sample_cpp_runs
from convert.export.exporter import Export
from convert.export.request import Request
from convert.labels import boxes, class_map
from convert.labels.boxes import Decoding, Photograph
from convert.labels.class_map import classes
from convert.latency.devices import runners
from convert.runtimes import registry
from seaformer_jax.errors import UserError
from tests import toys
from tests.convert.alive import alive, write_detector
from tests.convert.latency import device_standins

SIZE = (64, 96)
NAMES = ("cat", "dog", "eel")
_OF_MNN = ("The device supports:", "MNN use ")  # Lines that MNN prints itself.
# In place of ONNX Runtime's header: the output is the red, green and blue of the input, or where red is the largest.
STAND_IN = """
#include <cstdint>
#include <vector>
enum { OrtArenaAllocator, OrtMemTypeDefault };
namespace Ort {
struct Env {}; struct SessionOptions {}; struct RunOptions {};
struct MemoryInfo { static MemoryInfo CreateCpu(int, int) { return {}; } };
struct Shape { size_t count; size_t GetElementCount() const { return count; } };
struct Value {
  const void *values; size_t count;
  template <class T> static Value CreateTensor(const MemoryInfo &, T *values, size_t count, const int64_t *, size_t) {
    return {values, count};
  }
  template <class T> const T *GetTensorData() const { return static_cast<const T *>(values); }
  Shape GetTensorTypeAndShapeInfo() const { return {count}; }
};
struct Session {
  Session(Env &, const char *, SessionOptions) {}
  std::vector<Value> Run(RunOptions, const char **, Value *input, size_t, const char **, size_t) { return {*input}; }
};
}
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, pathlib.Path]:
    """Task -> file of weights."""
    toys.register()
    folder, found = tmp_path_factory.mktemp("weights"), {}
    for task, mirror in (("classification", torch_model), ("segmentation", torch_segmentation)):
        torch.manual_seed(0)
        found[task] = folder / f"{task}.pth"
        torch.save(alive(mirror.create_model("mini", len(NAMES)), SIZE).state_dict(), found[task])
    return found | {"detection": write_detector(folder, NAMES, SIZE)}


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 150, 3), np.uint8)).save(path)
    return path


def export(folder, weights: pathlib.Path, format_: str, **changes) -> Bundle:
    try:
        registry.find(format_)
    except UserError as error:
        pytest.skip(str(error))
    with bundle_folder.writing(folder) as temporary:
        Export(Request(weights, format_, SIZE, class_names=NAMES, **changes)).run(temporary)
    return Bundle.open(folder)


def block(made: Bundle, language: str) -> str:
    return re.search(rf"```{language}\n(.*?)```", (made.folder / "README.md").read_text(), re.DOTALL)[1]


def run_python(made: Bundle, photo: pathlib.Path) -> list[str]:
    """Runs the Python program of the README, which cannot import this project; returns the lines that it prints."""
    (made.folder / "sample.py").write_text(block(made, "python"))
    command = [sys.executable, "-P", "sample.py", str(photo)]
    done = subprocess.run(
        command, cwd=made.folder, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if not line.startswith(_OF_MNN)]


def labels_in_torch(weights: pathlib.Path, photo: pathlib.Path) -> np.ndarray:
    model = torch_segmentation.create_model("mini", len(NAMES)).eval()
    model.load_state_dict(torch.load(weights))
    prepare = preparation.Preparation.of(
        {},
        task="segmentation",
        size=SIZE,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        inside=False,
    )
    image = prepare.trained(prepare.read(photo)).transpose(0, 3, 1, 2)
    with torch.no_grad():
        logits = model(torch.from_numpy(image))
        return torch.nn.functional.interpolate(logits, SIZE, mode="bilinear").argmax(1)[0].numpy()


@pytest.mark.parametrize(
    ("format_", "changes"),
    [
        ("onnx", {"output": "labels", "input_type": "uint8"}),
        ("onnx", {"output": "logits", "inside": False}),
        ("onnx", {"output": "logits8"}),
        *(pytest.param(name, {"output": "labels"}, marks=pytest.mark.slow) for name in NATIVE[1:]),
    ],
    ids=lambda value: value if isinstance(value, str) else value["output"],
)
def test_python_segments(tmp_path, weights, photo, format_, changes):
    made = export(tmp_path / "b", weights["segmentation"], format_, **changes)
    lines = run_python(made, photo)
    found = np.asarray(Image.open(made.folder / "labels.png"))
    expected = labels_in_torch(weights["segmentation"], photo)
    assert np.mean(found == expected) > 0.999
    shares = [f"{100 * np.mean(found == k):.1f} % {NAMES[k]}" for k in np.unique(found)]
    assert lines == shares


def test_python_uses_the_kernel(tmp_path, weights, photo):
    """With the C source as the tail, which ONNX does not need; the runtimes that do are too large for every test."""
    made = export(tmp_path / "b", weights["segmentation"], "onnx", output="logits8")
    made = dataclasses.replace(made, tail=class_map.NAME)
    made.copy_tail()
    made.write_readme(readme.text(made))
    run_python(made, photo)
    found = np.asarray(Image.open(made.folder / "labels.png"))
    assert np.mean(found == labels_in_torch(weights["segmentation"], photo)) > 0.999


def test_python_classifies(tmp_path, weights, photo):
    made = export(tmp_path / "b", weights["classification"], "onnx", inside=False)
    lines = run_python(made, photo)
    prepare = preparation.Preparation.of_bundle(made)
    (logits,) = registry.find("onnx").load(made)(prepare.exported(prepare.read(photo)))
    shares = np.exp(logits) / np.exp(logits).sum()
    assert lines == [f"{100 * shares[k]:.1f} % {NAMES[k]}" for k in np.argsort(-shares)]


def line(box: np.ndarray, score: float, name: str) -> str:
    x1, y1, x2, y2 = box
    return f"{100 * score:.1f} % {name} from ({x1:.1f}, {y1:.1f}) to ({x2:.1f}, {y2:.1f})"


@pytest.mark.parametrize(
    "format_", ["onnx", *(pytest.param(name, marks=pytest.mark.slow) for name in NATIVE[1:])]
)
def test_python_finds_boxes(tmp_path, weights, photo, format_):
    made = export(tmp_path / "b", weights["detection"], format_)
    lines = run_python(made, photo)
    prepare, image = preparation.Preparation.of_bundle(made), np.asarray(Image.open(photo))
    (head,) = registry.find(format_).load(made)(prepare.exported(prepare.fit(image)))
    found = boxes.decode(head, Decoding(SIZE, **made.decoding), prepare.photograph(image))
    assert prepare.photograph(image).size == (58, 96) and len(lines) > 10
    assert lines == [line(box, score, NAMES[label]) for box, score, label in zip(*found, strict=True)]


def test_cpp_finds_boxes(tmp_path):
    """With a stand-in for ONNX Runtime, whose only output is the input; its first values are the outputs here."""
    if not (shutil.which("g++") and shutil.which("gcc")):
        pytest.skip("g++ and gcc are needed")
    fields = {"output": "head", "tail": boxes.NAME, "normalized_inside": True}
    settings = Decoding(SIZE, 4.0, 0.05, 0.5, 20, 15)
    made = device_standins.write_bundle(
        tmp_path / "b", "onnx", task="detection", input_size=SIZE,
        decoding={name: value for name, value in settings._asdict().items() if name != "input_size"},
        tensors={"input": "image", "output": "logits", "deltas": "deltas"}, **fields,
    )  # fmt: skip
    made.write_reference(np.zeros(0), np.zeros((1, 1161, 3 + 4)))
    made.copy_tail()
    (made.folder / "onnxruntime_cxx_api.h").write_text(STAND_IN)
    (made.folder / "sample.cpp").write_text(sample_cpp.code(made))
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    (made.folder / "image.ppm").write_bytes(b"P6\n96 64\n255\n" + pixels.tobytes())
    command = sample_cpp.command(made).replace("-lonnxruntime", "-I.")
    done = subprocess.run(["sh", "-ec", command], cwd=made.folder, check=True, capture_output=True, text=True)
    values = preparation.Preparation.of_bundle(made).exported(pixels).transpose(0, 3, 1, 2).ravel()
    logits, deltas = values[: 1161 * 3].reshape(-1, 3), values[1161 * 3 : 1161 * 7].reshape(-1, 4)
    found = boxes.numpy_decode(np.concatenate([logits, deltas], 1), settings, Photograph(SIZE))
    assert done.stdout.splitlines() == [
        line(box, score, f"class {label}") for box, score, label in zip(*found, strict=True)
    ]


@pytest.mark.slow
def test_cpp_finds_boxes_in_litert(tmp_path, weights):
    """With LiteRT itself. Its wheel has no headers, so they are made of what our runner declares."""
    litert = pytest.importorskip("ai_edge_litert", reason="pip install 'seaformer-jax[litert]'")
    library, made = (
        pathlib.Path(litert.__file__).parent,
        export(tmp_path / "b", weights["detection"], "litert"),
    )
    declared = (runners.SOURCES / "litert.cpp").read_text()
    (made.folder / "litert/c").mkdir(parents=True)
    for name in sample_cpp_runs.HEADERS["litert"]:
        (made.folder / name.strip('"')).write_text("#pragma once\n#include <litert.h>\n")
    (made.folder / "litert.h").write_text(
        "#pragma once\n#include <cstdint>\n#include <cstddef>\n"
        + declared[declared.index('extern "C"') : declared.index("namespace")]
        + "enum { kLiteRtStatusOk, kLiteRtHwAcceleratorCpu = 1, kLiteRtElementTypeFloat32 = 1 };\n"
        "enum { kLiteRtTensorBufferLockModeRead, kLiteRtTensorBufferLockModeWrite };\n"
        "using LiteRtTensorBufferRequirements = LiteRtRequirements;\n"
        "using LiteRtRankedTensorType = LiteRtTensorType;\n"
    )
    (made.folder / "sample.cpp").write_text(sample_cpp.code(made))
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    (made.folder / "image.ppm").write_bytes(b"P6\n96 64\n255\n" + pixels.tobytes())
    command = sample_cpp.command(made).replace("-lLiteRt", f"-I. -L{library} -lLiteRt -Wl,-rpath,{library}")
    done = subprocess.run(["sh", "-ec", command], cwd=made.folder, check=True, capture_output=True, text=True)
    (head,) = registry.find("litert").load(made)(preparation.Preparation.of_bundle(made).exported(pixels))
    found = boxes.decode(head, Decoding(SIZE, **made.decoding), Photograph(SIZE))
    assert done.stdout.splitlines() == [
        line(box, score, f"class {label}") for box, score, label in zip(*found, strict=True)
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"output": "labels", "input_type": "uint8", "layout": "NHWC"},
        {"output": "logits8", "output_layout": "NCHW", "tail": class_map.NAME, "normalized_inside": True},
        {"output": "logits8", "output_layout": "NCHW", "tail": class_map.NAME},
    ],
    ids=["labels", "kernel", "kernel, normalised outside"],
)
def test_cpp_compiles_and_runs(tmp_path, fields):
    """With a stand-in for ONNX Runtime, so that everything around the network is compared."""
    if not (shutil.which("g++") and shutil.which("gcc")):
        pytest.skip("g++ and gcc are needed")
    made = device_standins.write_bundle(
        tmp_path / "b", "onnx", task="segmentation", input_size=SIZE, **fields
    )
    made.write_reference(np.zeros(0), np.zeros((1, *SIZE, 3)))  # The network returns what it is given.
    made.copy_tail()
    (made.folder / "onnxruntime_cxx_api.h").write_text(STAND_IN)
    (made.folder / "sample.cpp").write_text(sample_cpp.code(made))
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    (made.folder / "image.ppm").write_bytes(b"P6\n96 64\n255\n" + pixels.tobytes())
    command = sample_cpp.command(made).replace("-lonnxruntime", "-I.")
    subprocess.run(["sh", "-ec", command], cwd=made.folder, check=True)
    found = np.asarray(Image.open(made.folder / "labels.pgm"))
    if made.output == "labels":
        np.testing.assert_array_equal(found, pixels.reshape(-1)[: found.size].reshape(SIZE))
    else:
        prepared = preparation.Preparation.of_bundle(made).exported(pixels)
        np.testing.assert_array_equal(found, classes(prepared, SIZE))
