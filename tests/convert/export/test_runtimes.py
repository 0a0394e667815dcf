"""Every installed runtime takes models of both tasks, in all its precisions."""

import dataclasses

import numpy as np
import pytest
import torch
from etils import epath
from PIL import Image

from convert import bundle_folder, torch_detection, torch_model, torch_segmentation
from convert.bundle import FORMATS, Bundle
from convert.export.exporter import Export
from convert.export.request import Request
from convert.labels import boxes
from convert.labels.class_map import argmax_upsample
from convert.runtimes import base, registry
from convert.runtimes.base import Graph
from seaformer_jax.errors import UserError
from tests import toys
from tests.convert.alive import alive, write_detector

SIZE = (64, 96)


@pytest.fixture(params=[name for name in FORMATS if name != "web"])  # That is onnx in another folder.
def installed(request) -> str:
    try:
        registry.find(request.param)
    except UserError as error:
        pytest.skip(str(error))
    return request.param


def export(tmp_path, model: torch.nn.Module, format_: str, **changes) -> tuple[Bundle, dict]:
    torch.save(model.state_dict(), tmp_path / "m.pth")
    request = Request(tmp_path / "m.pth", format_, SIZE, **changes)
    with bundle_folder.writing(tmp_path / "b") as folder:
        report = Export(request).run(folder)
    return Bundle.open(tmp_path / "b"), report


def bare(folder, format_: str, precision: str) -> Bundle:
    """Returns a bundle with only the fields that a runtime reads."""
    fields = {field.name: None for field in dataclasses.fields(Bundle)}
    layout = base.input_layout("float32", registry.find(format_).LAYOUT)
    given = {
        "folder": folder,
        "format": format_,
        "precision": precision,
        "output": "logits",
        "layout": layout,
    }
    return Bundle(**fields | given | {"output_layout": ""})


def normalized(made: Bundle, image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(((image - made.mean) / made.std).astype(np.float32)).permute(0, 3, 1, 2)


@pytest.mark.slow
def test_labels_of_a_segmentation_model(tmp_path, installed):
    torch.manual_seed(0)
    model = alive(torch_segmentation.create_model("seaformer_tiny", 7), SIZE)
    made, report = export(tmp_path, model, installed, output="labels")
    assert report["precisions"][0]["outside_delegate"] == {}

    image, expected = made.reference()
    found = registry.find(installed).load(made)(image)
    np.testing.assert_array_equal(found, expected)
    labels = found[0] if made.output == "labels" else argmax_upsample(found[0], SIZE)
    with torch.no_grad():
        logits = torch.nn.functional.interpolate(model(normalized(made, image)), SIZE, mode="bilinear")
    assert np.mean(labels == logits.argmax(1)[0].numpy()) > 0.999


@pytest.mark.parametrize("size", [(72, 136), (128, 64)])
@pytest.mark.parametrize("precision", ["fp32", pytest.param("fp16", marks=pytest.mark.slow)])
def test_boxes_of_a_detector(tmp_path, installed, precision, size):
    """Levels with odd sides, and levels of which each is twice the next; the boxes are those of PyTorch."""
    names = ("class 0", "class 1", "class 2")
    toys.register()
    weights = write_detector(tmp_path, names, size)
    with bundle_folder.writing(tmp_path / "b") as folder:
        report = Export(Request(epath.Path(weights), installed, size, precision=precision)).run(folder)
    made, (row,) = Bundle.open(tmp_path / "b"), report["precisions"]
    assert sum(row["outside_delegate"].values()) <= 3 * (precision == "fp16"), row  # Casts.

    model = torch_detection.create_model("nano_detection", 3, neck_width=8, tower_convs=1).eval()
    model.load_state_dict(torch.load(weights))
    image, _ = made.reference()
    with torch.no_grad():
        expected = np.concatenate(model(normalized(made, image)), axis=2)
    found = registry.find(installed).load(made)(image)
    within = (1e-5 if precision == "fp32" else 2e-2) * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=within)
    decoding = boxes.Decoding(size, **made.decoding)
    ours, theirs = boxes.decode(found[0], decoding), boxes.decode(expected[0], decoding)
    assert len(theirs.scores) > 20 and boxes.found_again(theirs, ours, decoding).mean() > 0.95


@pytest.mark.slow
def test_precisions_of_a_classifier(tmp_path, installed):
    torch.manual_seed(0)
    model, rng = alive(torch_model.create_model("seaformer_tiny", 2), SIZE), np.random.default_rng(0)
    for name in ("class 0", "class 1"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "others").mkdir(exist_ok=True)
        for number in range(4):
            for path in (
                tmp_path / "photos" / name / f"{number}.png",
                tmp_path / "others" / f"{name} {number}.png",
            ):
                Image.fromarray(rng.integers(0, 256, (70, 100, 3), np.uint8)).save(path)
    smallest = registry.find(installed).PRECISIONS[-1]
    folders = {"calibration": str(tmp_path / "others"), "validation": str(tmp_path / "photos")}
    folders = folders if smallest == "int8" else {}
    made, report = export(tmp_path, model, installed, precision=smallest, max_drop=100.0, **folders)

    assert made.reference()[1].shape == (1, 2) and np.isfinite(made.reference()[1]).all()
    rows = {row["precision"]: row for row in report["precisions"]}
    # Only fp16 may have operators outside: a cast at both ends, if the arithmetic is in half precision.
    outside = {name: sum(row["outside_delegate"].values()) for name, row in rows.items()}
    assert all(count <= 2 * (name == "fp16") for name, count in outside.items()), str(rows)
    if smallest == "int8":  # Random weights lose their meaning in 8 bits; the next test compares values.
        assert rows["int8"]["bytes"] < 0.4 * rows["fp32"]["bytes"]


def test_precisions_of_a_small_network(tmp_path, installed):
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(3, 16, 3, stride=2, padding=1)
    model = torch.nn.Sequential(
        conv, torch.nn.ReLU6(), torch.nn.AvgPool2d(8), torch.nn.Flatten(1), torch.nn.Linear(16 * 4 * 6, 5)
    )
    folders = {precision: tmp_path / precision for precision in registry.find(installed).PRECISIONS}
    for folder in folders.values():
        folder.mkdir()
    rng = np.random.default_rng(0)
    images = list(rng.random((8, 1, *SIZE, 3), np.float32) * rng.random((8, 1, 1, 1, 3), np.float32))
    with torch.no_grad():
        expected = np.stack([model(torch.from_numpy(image).permute(0, 3, 1, 2)).numpy() for image in images])
    runtime = registry.find(installed)
    runtime.export(Graph(model.eval(), "classification", "logits", SIZE), folders, images)
    spread = np.std(expected, axis=0).mean()
    for precision, within in (("fp32", 1e-4), ("fp16", 0.1), ("int8", 0.5)):
        if precision in folders:
            network = runtime.load(bare(folders[precision], installed, precision))
            found = np.stack([network(image) for image in images])
            assert np.sqrt(np.mean((found - expected) ** 2)) < within * spread, precision


def test_operator_that_no_runtime_takes(tmp_path, installed):
    class Spectrum(torch.nn.Module):
        def forward(self, x):
            return torch.linalg.svdvals(x).mean(2)

    graph, runtime = Graph(Spectrum(), "classification", "logits", SIZE), registry.find(installed)
    with pytest.raises(Exception, match=r"(?i)svd"):
        runtime.export(graph, {"fp32": tmp_path}, [])


def test_threads_and_copies(tmp_path, installed):
    """The result of the second image does not overwrite that of the first."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.AvgPool2d(SIZE), torch.nn.Flatten(1), torch.nn.Linear(3, 2)).eval()
    runtime = registry.find(installed)
    graph = Graph(model, "classification", "logits", SIZE)
    runtime.export(graph, {"fp32": tmp_path}, [])
    network = runtime.load(bare(tmp_path, installed, "fp32"), threads=2)
    images = np.random.default_rng(0).random((2, 1, *SIZE, 3), np.float32)
    found = [network(image) for image in images]
    with torch.no_grad():
        expected = [model(torch.from_numpy(image).permute(0, 3, 1, 2)).numpy() for image in images]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not np.allclose(found[0], found[1], atol=1e-4)
