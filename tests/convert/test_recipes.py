"""The Python code in convert/RECIPES.md, run unchanged if its packages are installed."""

import importlib.util
import pathlib
import re

import numpy as np
import pytest
import torch

from convert import torch_segmentation
from convert.export import seeded_bundles
from convert.graph import seeded_networks
from tests.paths import REPOSITORY

RECIPES = REPOSITORY / "convert" / "RECIPES.md"


def code(heading: str) -> str:
    """Returns the Python code below the heading that begins with `heading`."""
    section = re.search(rf"^## {heading}.*?(?=^## |\Z)", RECIPES.read_text(), re.M | re.S)[0]
    return re.search(r"```python\n(.*?)```", section, re.S)[1]


def need(*modules: str) -> None:
    missing = [name for name in modules if not importlib.util.find_spec(name)]
    if missing:
        pytest.skip(f"{', '.join(missing)} missing: see convert/RECIPES.md")


@pytest.mark.parametrize(("heading", "module"), [("MNN", "MNN"), ("OpenVINO", "openvino")])
def test_runtimes_give_the_logits_of_the_bundle(heading, module, tmp_path, monkeypatch):
    need(module, "onnx", "onnxscript")
    monkeypatch.chdir(tmp_path)
    size = (64, 96)
    model = seeded_networks.seeded("segmentation", "seaformer_tiny", size)
    seeded_bundles.write_bundle(
        model, pathlib.Path("camvid_onnx"), "segmentation", "seaformer_tiny", "onnx", size
    )
    names = {}
    exec(code(heading), names)
    with torch.no_grad():
        expected = (
            model(torch.from_numpy(seeded_networks.picture(size)).permute(0, 3, 1, 2))
            .permute(0, 2, 3, 1)
            .numpy()
        )
    np.testing.assert_allclose(names["found"], expected, rtol=0, atol=5e-5 * np.abs(expected).max())


def test_core_ml_takes_the_model(tmp_path, monkeypatch):
    need("coremltools")
    monkeypatch.chdir(tmp_path)
    torch.save(torch_segmentation.create_model("seaformer_tiny", num_classes=11).state_dict(), "camvid.pth")
    names = {}
    exec(code("Core ML"), names)
    (output,) = names["converted"].get_spec().description.output
    assert list(output.type.multiArrayType.shape) == [1, 11, 45, 60]
    assert (tmp_path / "camvid.mlpackage").is_dir()
