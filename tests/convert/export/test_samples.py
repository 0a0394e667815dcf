"""Programs of READMEs for runtimes that other machines have, or that bring their C++ headers along."""

import dataclasses
import pathlib
import shutil
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image

from convert.bundle import Bundle
from convert.export import readme, sample_cpp, sample_python
from convert.labels import class_map
from convert.runtimes import mil_evaluation, registry
from seaformer_jax.errors import UserError
from tests.convert import small_bundles
from tests.convert.small_bundles import MEAN, NAMES, SIZE, STD


@pytest.fixture(scope="module")
def trained() -> torch.nn.Module:
    return small_bundles.network("segmentation")


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)


def expected(trained: torch.nn.Module, pixels: np.ndarray) -> np.ndarray:
    """Returns the class of every pixel as PyTorch computes it."""
    normalized = torch.from_numpy(((pixels / 255 - MEAN) / STD).astype(np.float32))
    with torch.no_grad():
        logits = trained(normalized.permute(2, 0, 1)[None])
        return torch.nn.functional.interpolate(logits, SIZE, mode="bilinear").argmax(1)[0].numpy()


def complete(made: Bundle) -> Bundle:
    """Returns the bundle with the C source that turns its logits into labels."""
    made = dataclasses.replace(made, tail=class_map.NAME)
    made.copy_tail()
    return made


def test_cpp_runs_in_openvino(tmp_path, trained, pixels):
    if not (shutil.which("g++") and shutil.which("gcc")):
        pytest.skip("g++ and gcc are needed")
    made = complete(small_bundles.write(tmp_path, trained, "segmentation", "openvino", "logits8"))
    import openvino

    package = pathlib.Path(openvino.__file__).parent
    (library,) = (package / "libs").glob("libopenvino.so.*")
    (tmp_path / "sample.cpp").write_text(sample_cpp.code(made))
    (tmp_path / "image.ppm").write_bytes(b"P6\n96 64\n255\n" + pixels.tobytes())
    flags = f"-I{package}/include {library} -Wl,-rpath,{package}/libs"
    command = sample_cpp.command(made).replace("-lopenvino", flags)
    done = subprocess.run(["sh", "-ec", command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = np.asarray(Image.open(tmp_path / "labels.pgm"))
    assert np.mean(found == expected(trained, pixels)) > 0.999


def test_python_for_core_ml(tmp_path, trained, pixels, monkeypatch):
    """With an evaluation of the package in place of Core ML, so that everything around it is compared."""
    made = complete(small_bundles.write(tmp_path, trained, "segmentation", "coreml", "logits8"))
    import coremltools

    class Evaluated:
        def __init__(self, package: str):
            folder = tmp_path / package
            self._program = mil_evaluation.read(folder, folder / "Data/com.apple.CoreML/weights")

        def predict(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return mil_evaluation.evaluate(self._program, inputs)

    monkeypatch.setattr(coremltools.models, "MLModel", Evaluated)
    monkeypatch.chdir(tmp_path)
    Image.fromarray(pixels).save("photo.png")
    monkeypatch.setattr("sys.argv", ["sample.py", "photo.png"])
    exec(sample_python.code(made), {})
    found = np.asarray(Image.open("labels.png"))
    assert np.mean(found == expected(trained, pixels)) > 0.999

    text = readme.text(made)
    assert "The model was converted and not run" in text and "convert.run" not in text
    assert f"[1, 3, {SIZE[0]}, {SIZE[1]}]" in text.split("```swift")[1] and "```cpp" not in text
    assert made.class_names == NAMES


def test_core_ml_operators_that_cannot_be_evaluated(tmp_path, trained, monkeypatch):
    made = small_bundles.write(tmp_path, trained, "segmentation", "coreml", "logits8")
    monkeypatch.delitem(mil_evaluation.OPERATORS, "softmax")
    with pytest.raises(UserError, match="has the operators softmax, which cannot be evaluated here"):
        registry.find("coreml").load(made)
