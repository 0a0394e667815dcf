"""The C++ of all runners, compiled for this machine around a network whose outputs are known."""

import shutil
import subprocess

import numpy as np
import pytest

from convert.bundle import Bundle
from convert.labels import boxes, class_map
from convert.latency.devices import runners
from convert.latency.devices.base import STEPS
from convert.latency.on_device.image_pipeline import picture
from convert.latency.on_device.runner_input import RunnerInput
from tests.convert.latency import device_standins as standins

SIZE = (64, 96)
ANCHORS = 1161  # Of an input of 64 x 96: nine for each cell of five levels.
# Writes what it is given at its first run to the file `seen`, and returns the values of the file `model`.
NETWORK = """
#include <cstdio>
#include "network.h"

struct Known : Network {
  std::vector<float> given, values;
  std::string seen;

  explicit Known(const Options &options) : given(3 * 64 * 96), seen(options.at("seen")) {
    input = given.data();
    FILE *file = std::fopen(options.at("model").c_str(), "rb");
    for (float value; std::fread(&value, sizeof value, 1, file);) values.push_back(value);
    std::fclose(file);
    const float *next = values.data();
    for (const char *name : {"shape0", "shape1"}) {
      if (!options.count(name)) continue;
      size_t count = 1;
      outputs.push_back({next, 0, {}});
      for (const std::string &size : split(options.at(name))) {
        outputs.back().shape.push_back(std::stoi(size));
        count *= outputs.back().shape.back();
      }
      outputs.back().bytes = count * sizeof(float);
      next += count;
    }
  }

  void run() override {
    if (seen.empty()) return;
    FILE *file = std::fopen(seen.c_str(), "wb");
    std::fwrite(given.data(), sizeof(float), given.size(), file);
    std::fclose(file);
    seen.clear();
  }
};

std::unique_ptr<Network> open_network(const Options &options) { return std::make_unique<Known>(options); }
"""


@pytest.fixture(scope="module")
def runner(tmp_path_factory) -> str:
    """The program."""
    if not (shutil.which("g++") and shutil.which("gcc")):
        pytest.skip("g++ and gcc are needed")
    folder = tmp_path_factory.mktemp("runner")
    (folder / "known.cpp").write_text(NETWORK)
    c = [str(path) for path in runners.sources() if path.suffix == ".c"]
    cpp = [str(runners.SOURCES / name) for name in runners.SHARED] + ["known.cpp"]
    fused = ["-march=native"]  # For fused multiply-add, as NumPy's twin rounds.
    warnings = ["-Wall", "-Wextra", "-Werror"]
    folders = [f"-I{runners.SOURCES}", f"-I{runners.KERNELS[0].parent}"]
    subprocess.run(["gcc", "-std=c99", "-O2", *fused, "-c", *c], cwd=folder, check=True)
    objects = [path.name for path in folder.glob("*.o")]
    command = ["g++", "-std=c++17", "-O1", *warnings, *folders, *cpp, *objects, "-lm", "-o", "runner"]
    subprocess.run(command, cwd=folder, check=True)
    return str(folder / "runner")


def run(runner: str, bundle: Bundle, outputs: list[np.ndarray], folder) -> RunnerInput:
    """Runs a bundle whose network returns `outputs`; what the runner writes is in `folder`."""
    bundle.model.write_bytes(b"".join(output.tobytes() for output in outputs))
    runner_input = RunnerInput(bundle)
    runner_input.write(folder)
    (folder / bundle.model.name).write_bytes(bundle.model.read_bytes())
    shapes = [f"shape{i}={','.join(map(str, output.shape))}" for i, output in enumerate(outputs)]
    arguments = [*runner_input.arguments(str(folder), 1, 1, 3), *shapes, f"seen={folder / 'seen'}"]
    done = subprocess.run([runner, *arguments], check=True, capture_output=True, text=True)
    assert all(f'"{step}": [' in done.stdout for step in STEPS) and '"peak_kb"' in done.stdout
    return runner_input


def write_bundle(folder, expected: np.ndarray, image: np.ndarray | None = None, **fields) -> Bundle:
    """Writes a bundle whose expected output, channels last, is `expected`."""
    bundle = standins.write_bundle(folder, "onnx", **{"input_size": SIZE} | fields)
    if image is None:
        image = np.random.default_rng(1).normal(size=(1, *SIZE, 3)).astype(np.float32)
    bundle.write_reference(image, expected)
    return bundle


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])
def test_the_image_is_normalised(runner, tmp_path, layout, inside):
    logits = np.float32([[1, 2, 3]])
    bundle = write_bundle(tmp_path / "b", logits, layout=layout, normalized_inside=inside)
    run(runner, bundle, [logits], tmp_path)
    image = picture(bundle) / 255
    expected = image if inside else (image - bundle.mean) / bundle.std
    seen = np.fromfile(tmp_path / "seen", np.float32)
    shape = (*SIZE, 3)
    seen = seen.reshape(shape) if layout == "NHWC" else seen.reshape(3, *SIZE).transpose(1, 2, 0)
    np.testing.assert_allclose(seen, expected, atol=2e-6)
    assert len(np.unique(image)) > 100


def test_the_bytes_of_a_camera_stay_as_they_are(runner, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), np.uint8)
    logits = np.float32([[1, 2, 3]])
    bundle = write_bundle(tmp_path / "b", logits, image, input_type="uint8", layout="NHWC")
    run(runner, bundle, [logits], tmp_path)
    seen = np.fromfile(tmp_path / "seen", np.uint8)[: image.size]
    np.testing.assert_array_equal(seen.reshape(image.shape), image)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_class_maps_are_those_of_numpy(runner, tmp_path, layout):
    logits = np.random.default_rng(2).normal(size=(1, 8, 12, 5)).astype(np.float32)
    fields = {"task": "segmentation", "output": "logits8", "output_layout": layout, "tail": class_map.NAME}
    bundle = write_bundle(tmp_path / "b", logits, **fields)
    given = logits if layout == "NHWC" else np.ascontiguousarray(logits.transpose(0, 3, 1, 2))
    runner_input = run(runner, bundle, [given], tmp_path)
    found = np.fromfile(tmp_path / "result", np.uint8).reshape(SIZE)
    np.testing.assert_array_equal(found, class_map.numpy_argmax_upsample(logits[0], SIZE))
    np.testing.assert_array_equal(runner_input.output(tmp_path / "output"), logits)


def test_of_equal_logits_the_lowest_class_wins(runner, tmp_path):
    logits = np.float32([[1, 7, 3, 7]])
    run(runner, write_bundle(tmp_path / "b", logits), [logits], tmp_path)
    assert np.fromfile(tmp_path / "result", np.int32).tolist() == [1]


def test_labels_of_the_model_are_the_result(runner, tmp_path):
    # Four bytes a value, as the network above has; they are compared as bytes.
    labels = np.random.default_rng(3).integers(0, 9, (1, *SIZE), np.int32)
    bundle = write_bundle(tmp_path / "b", labels, task="segmentation", output="labels")
    runner_input = run(runner, bundle, [labels.view(np.float32)], tmp_path)
    np.testing.assert_array_equal(np.fromfile(tmp_path / "result", np.int32), labels.ravel())
    np.testing.assert_array_equal(runner_input.output(tmp_path / "output"), labels)


def test_boxes_are_those_of_numpy(runner, tmp_path):
    generator = np.random.default_rng(4)
    logits = generator.normal(-2, 1, (1, ANCHORS, 3)).astype(np.float32)
    deltas = generator.normal(0, 0.3, (1, ANCHORS, 4)).astype(np.float32)
    settings = boxes.Decoding(SIZE, 4.0, 0.05, 0.5, 20, 15)
    decoding = {name: value for name, value in settings._asdict().items() if name != "input_size"}
    head = np.concatenate([logits, deltas], -1)
    bundle = write_bundle(tmp_path / "b", head, task="detection", output="head", decoding=decoding)
    runner_input = run(runner, bundle, [logits, deltas], tmp_path)
    found = np.fromfile(tmp_path / "result", [("boxes", "4f4"), ("scores", "f4"), ("labels", "i4")])
    expected = boxes.numpy_decode(head[0], settings, boxes.Photograph(SIZE))
    assert len(found) == len(expected.scores) == 15
    for name in ("boxes", "scores", "labels"):
        np.testing.assert_allclose(found[name], getattr(expected, name), rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(runner_input.output(tmp_path / "output"), head)


def test_a_missing_file_is_told(runner, tmp_path):
    logits = np.float32([[1, 2, 3]])
    bundle = write_bundle(tmp_path / "b", logits)
    run(runner, bundle, [logits], tmp_path)
    (tmp_path / "image").unlink()
    arguments = [*RunnerInput(bundle).arguments(str(tmp_path), 1, 1, 3), f"seen={tmp_path / 'seen'}"]
    done = subprocess.run([runner, *arguments], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == f"runner: cannot read {tmp_path / 'image'}\n"
