"""The export, with PyTorch in place of a runtime, so that everything around the runtimes is tested without them."""

import contextlib
import json
import os
import pathlib
import re

import numpy as np
import pytest
import torch
from PIL import Image

from convert import bundle_folder, torch_model, torch_segmentation
from convert.bundle import Bundle
from convert.checkpoints import files, pretrained
from convert.export import accuracy, preparation
from convert.export.exporter import Export
from convert.export.request import Request
from convert.labels import boxes
from convert.runtimes import base, registry
from seaformer_jax.config import IMAGENET_MEAN, IMAGENET_STD
from seaformer_jax.data.classification.augment import resize_and_center_crop
from seaformer_jax.data.segmentation.augment import resize_image
from seaformer_jax.detection import postprocess
from seaformer_jax.errors import UserError
from tests import forked, toys
from tests.convert.alive import alive, write_detector

SIZE = (64, 96)
NAMES = ("cat", "dog", "eel")


class InTorch:
    """A runtime whose model file is a traced module, which computes in float32 in every precision."""

    LAYOUT, OUTPUT_LAYOUTS = "NCHW", {"logits8": "NCHW", "logits": "NCHW"}
    PRECISIONS, LABELS_IN_GRAPH = ("fp32", "fp16", "int8"), False
    INPUT_TYPES, NAMED, DYNAMIC_BATCH, OPSETS = ("float32", "uint8"), True, False, ()
    RUNS_HERE = True

    def __init__(self, error: Exception | None = None):
        self.error, self.calibration = error, []

    def export(self, graph, folders, calibration):
        if self.error:
            raise self.error
        self.calibration = calibration
        traced = torch.jit.trace(base.upsampled(graph), graph.example())
        for folder in folders.values():
            traced.save(folder / "model.onnx")

    def load(self, made, threads=1):
        model = torch.jit.load(made.model)

        def network(images):
            output = model(torch.from_numpy(base.in_layout(images, made.layout)))
            outputs = output if isinstance(output, tuple) else (output,)
            return base.joined([part.detach().numpy() for part in outputs], made.output_layout)

        return network

    def annotate(self, made):
        (made.folder / "annotation").write_text(json.dumps(base.metadata(made)))

    def outside(self, made):
        return {"Cast": 2}

    def remark(self, made):
        return "" if self.RUNS_HERE else "This was not run."


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, pathlib.Path]:
    """Task -> file of weights."""
    toys.register()
    folder, found = tmp_path_factory.mktemp("weights"), {}
    for task, mirror in (("classification", torch_model), ("segmentation", torch_segmentation)):
        torch.manual_seed(0)
        model = alive(mirror.create_model("mini", len(NAMES)), SIZE)
        found[task] = folder / f"{task}.pth"
        torch.save(model.state_dict(), found[task])
    found["detection"] = write_detector(folder, NAMES, SIZE)
    return found


@pytest.fixture
def runtime(monkeypatch) -> InTorch:
    stand_in = InTorch()
    monkeypatch.setattr(registry, "find", lambda name: stand_in)
    return stand_in


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> pathlib.Path:
    """Labelled images of both tasks: classes/<class>/*.png, seg/images/val/*.png, seg/annotations/val/*.png.

    Those in other/ are not among them.
    """
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(1)
    places = "seg/images/val", "seg/annotations/val", "other", "empty"
    for place in (*(f"classes/{name}" for name in NAMES), *places):
        (folder / place).mkdir(parents=True)
    for index, name in enumerate(NAMES):
        pixels = rng.integers(0, 256, (80, 120, 3), np.uint8)
        mask = rng.integers(0, 4, (80, 120)).astype(np.uint8)
        mask[mask == 3] = 255
        Image.fromarray(pixels).save(folder / "classes" / name / "a.png")
        Image.fromarray(pixels).save(folder / "seg/images/val" / f"{index}.png")
        Image.fromarray(mask).save(folder / "seg/annotations/val" / f"{index}.png")
        Image.fromarray(255 - pixels).save(folder / "other" / f"{index}.png")
    return folder


def run(tmp_path, weights: pathlib.Path, **changes) -> Bundle:
    request = Request(weights, "onnx", SIZE, **changes)
    with bundle_folder.writing(tmp_path / "b") as folder:
        Export(request).run(folder)
    return Bundle.open(tmp_path / "b")


# The bundle and its report


@pytest.mark.parametrize(
    ("output", "written", "tail"),
    [("logits", "logits", ""), ("labels", "logits8", "argmax_upsample")],
)
def test_segmentation_bundle(tmp_path, weights, runtime, output, written, tail):
    made = run(tmp_path, weights["segmentation"], output=output, inside=output != "logits")
    assert (made.task, made.name, made.output, made.tail) == ("segmentation", "mini", written, tail)
    assert (made.layout, made.output_layout, len(made.palette)) == ("NCHW", "NCHW", 3)
    assert (tmp_path / "b" / "argmax_upsample.c").exists() == bool(tail)
    assert ("`argmax_upsample.c` in this bundle turns" in (tmp_path / "b" / "report.md").read_text()) == bool(
        tail
    )
    assert made.tensors == {"input": "image", "output": written}
    assert made.masks == {"ignore_label": 255, "reduce_zero_label": False, "id_map": None}
    assert made.preprocessing == {
        "resize": "stretch",
        "crop_fraction": 1.0,
        "interpolation": "bilinear",
        "channel_order": "RGB",
        "value_range": (0, 1),
    }

    # The reference output is that of the trained model, whether the caller normalises or the exported model.
    image, expected = made.reference()
    assert image.shape == (1, *SIZE, 3)
    if made.normalized_inside:
        assert image.min() >= 0 and image.max() <= 1
        image = (image - np.float32(made.mean)) / np.float32(made.std)
    model = torch_segmentation.create_model("mini", 3).eval()
    model.load_state_dict(torch.load(weights["segmentation"]))
    logits = model(torch.from_numpy(image).permute(0, 3, 1, 2)).detach()
    if written == "logits":
        logits = torch.nn.functional.interpolate(logits, SIZE, mode="bilinear")
    np.testing.assert_allclose(expected, logits.permute(0, 2, 3, 1), atol=1e-4 * logits.abs().max())


def test_classifier_bundle_and_report(tmp_path, weights, runtime, photos):
    names = ("ant", "bee", "cow")
    made = run(tmp_path, weights["classification"], images=str(photos / "classes"), class_names=names)
    assert (made.output, made.output_layout, made.tail, made.palette) == ("logits", "", "", ())
    assert made.class_names == names
    assert made.source["file"] == "classification.pth" and re.fullmatch("[0-9a-f]{64}", made.source["sha256"])
    assert made.reference()[1].shape == (1, 3)

    report = json.loads((tmp_path / "b" / "report.json").read_text())
    (row,) = report["precisions"]
    assert (row["precision"], row["images"], row["classes"]) == ("fp32", 6, 6)  # Three of them are seeded.
    assert row["largest"] <= 5e-5 * row["magnitude"] and row["agreement"] == 1
    assert row["outside_delegate"] == {"Cast": 2} and row["bytes"] == made.size()
    text = (tmp_path / "b" / "report.md").read_text()
    assert "2 Cast" in text and "on 6 images" in text
    annotation = json.loads((tmp_path / "b" / "annotation").read_text())
    assert annotation["task"] == "classification" and json.loads(annotation["class_names"]) == list(names)


def test_detector_bundle_and_report(tmp_path, weights, runtime, photos):
    made = run(tmp_path, weights["detection"], images=str(photos / "classes"))
    assert (made.output, made.output_layout, made.tail) == ("head", "", "decode_boxes")
    assert made.decoding == {
        "anchor_scale": 2.0, "score_threshold": 0.1, "iou_threshold": 0.5, "per_level": 1000, "per_image": 100
    }  # fmt: skip
    assert (tmp_path / "b" / "decode_boxes.c").exists()

    # The reference output is that of the trained model, and it becomes the boxes that JAX finds.
    image, expected = made.reference()
    source = pretrained.load(pretrained.read(weights["detection"]))
    normalized = (image - np.float32(made.mean)) / np.float32(made.std)
    logits, deltas = source.model(normalized, train=False)
    np.testing.assert_allclose(expected, np.concatenate([logits, deltas], -1), rtol=0, atol=1e-4)
    settings = postprocess.Settings(score_threshold=0.1)
    jax_boxes = postprocess.detect(
        logits, deltas, SIZE, np.array([SIZE]), np.ones((1, 2), np.float32), 2.0, settings
    )
    found = boxes.decode(expected[0], boxes.Decoding(SIZE, **made.decoding))
    kept = np.asarray(jax_boxes.scores[0]) > 0
    assert found.labels.tolist() == jax_boxes.labels[0][kept].tolist() and kept.sum() > 10
    np.testing.assert_allclose(found.scores, jax_boxes.scores[0][kept], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.boxes, jax_boxes.boxes[0][kept], rtol=0, atol=1e-2)

    (row,) = json.loads((tmp_path / "b" / "report.json").read_text())["precisions"]
    assert row["agreement"] == 1 and row["classes"] > 20 and row["largest"] <= 5e-5 * row["magnitude"]
    assert "share of boxes that the other model has" in (tmp_path / "b" / "report.md").read_text()


def test_int8_is_set_beside_the_others(tmp_path, weights, runtime, photos):
    folders = {"calibration": str(photos / "other"), "validation": str(photos / "seg/images/val")}
    made = run(tmp_path, weights["segmentation"], precision="int8", **folders)
    assert made.precision == "int8"
    assert [image.shape for image in runtime.calibration] == 3 * [(1, *SIZE, 3)]
    report = json.loads((tmp_path / "b" / "report.json").read_text())
    assert [row["precision"] for row in report["precisions"]] == ["fp32", "fp16", "int8"]
    assert report["metric"] == "mIoU" and report["validation_images"] == 3
    assert {row["score"] for row in report["precisions"]} == {report["trained_score"]}
    assert {path.name for path in (tmp_path / "b").iterdir()} == {
        "model.onnx",
        "model.json",
        "reference.npz",
        "report.json",
        "report.md",
        "README.md",
        "annotation",
    }
    assert made.score == {"metric": "mIoU", "percent": report["trained_score"], "images": 3}


@pytest.mark.parametrize(("most", "refused"), [(1.0, True), (2.5, False)])
def test_int8_may_lose_the_given_points(tmp_path, weights, runtime, photos, monkeypatch, most, refused):
    """Only the loss of int8 against the trained model counts; fp16 loses one point here."""
    scores = iter((60.0, 60.0, 59.0, 57.5))  # The trained model, fp32, fp16, int8.
    monkeypatch.setattr(accuracy.Validation, "score", lambda self, predict: next(scores))
    folders = {"calibration": str(photos / "other"), "validation": str(photos / "seg/images/val")}
    says = r"int8 drops mIoU from 60\.00 to 57\.50 %, by more than --max-drop 1\.0"
    with pytest.raises(UserError, match=says) if refused else contextlib.nullcontext():
        run(tmp_path, weights["segmentation"], precision="int8", max_drop=most, **folders)
    assert (tmp_path / "b").exists() != refused


@pytest.mark.parametrize("inside", [True, False])
def test_calibration_images_are_inputs_of_the_exported_model(tmp_path, weights, runtime, inside):
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    request = Request(weights["segmentation"], "onnx", SIZE, calibration=str(tmp_path), inside=inside)
    expected = pixels[None] / 255
    if not inside:
        expected = (expected - IMAGENET_MEAN) / IMAGENET_STD
    (found,) = Export(request).calibration
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_bytes_of_a_camera(tmp_path, weights, runtime):
    """The model that takes uint8 computes what the one that takes floats computes."""
    floats, of_floats = run(tmp_path, weights["segmentation"]).reference()
    made = run(tmp_path, weights["segmentation"], input_type="uint8")
    bytes_, of_bytes = made.reference()
    assert (bytes_.dtype, bytes_.shape, made.layout) == (np.uint8, (1, *SIZE, 3), "NHWC")
    assert made.preprocessing["value_range"] == (0, 255)
    np.testing.assert_allclose(bytes_ / 255, floats, atol=1e-6)
    np.testing.assert_allclose(of_bytes, of_floats, atol=1e-4 * np.abs(of_floats).max())


def test_calibration_images_are_no_validation_images(weights, runtime, photos, tmp_path):
    """Their content decides, not their names."""
    for path in ("other/0.png", "other/1.png", "classes/cat/a.png"):
        (tmp_path / path.replace("/", "_")).write_bytes((photos / path).read_bytes())
    folders = {"calibration": str(tmp_path), "validation": str(photos / "classes")}
    with pytest.raises(
        UserError, match=r"1 of 3 calibration images are also in --validation .*classes_cat_a\.png"
    ):
        Export(Request(weights["classification"], "onnx", SIZE, precision="int8", **folders))


def test_what_a_converter_prints_stays_out(tmp_path, weights, runtime, capfd):
    def noisy(graph, folders, calibration):
        print("from Python")
        os.write(1, b"from C to stdout\n")
        os.write(2, b"from C to stderr\n")
        quiet_export(graph, folders, calibration)

    quiet_export, runtime.export = runtime.export, noisy
    run(tmp_path, weights["classification"])
    os.write(2, b"afterwards\n")
    out, err = capfd.readouterr()
    assert "from" not in out + err and err.endswith("afterwards\n")


def test_more_classes_than_labels_can_name(tmp_path, runtime):
    torch.manual_seed(0)
    model = alive(torch_segmentation.create_model("mini", 257), SIZE)
    torch.save(model.state_dict(), tmp_path / "m.pth")
    with pytest.raises(
        UserError, match="--output labels: the weights have 257 classes; expected at most 256"
    ):
        Export(Request(tmp_path / "m.pth", "onnx", SIZE, output="labels"))
    made = run(tmp_path, tmp_path / "m.pth", output="logits8")
    assert made.reference()[1].shape == (1, 8, 12, 257)


def test_export_out_of_tolerance_leaves_no_bundle(tmp_path, weights, runtime, monkeypatch):
    shifted = InTorch()
    load = shifted.load
    monkeypatch.setattr(shifted, "load", lambda made: lambda images: 1.001 * load(made)(images))
    monkeypatch.setattr(registry, "find", lambda name: shifted)
    with pytest.raises(
        UserError,
        match=r"fp32 model differs too much from the trained one: the largest difference is 1\.0e-03 of",
    ):
        run(tmp_path, weights["segmentation"])
    assert not list(tmp_path.iterdir())


# Wrong input


@pytest.mark.parametrize(
    ("task", "changes", "said"),
    [
        ("classification", {"output": "labels"}, "--output labels: the outputs of classification in this format"),
        ("detection", {"output": "labels"}, "--output labels: the outputs of detection in this format are head"),
        ("detection", {"class_names": ("a", "b")}, "2 class names are given; expected 3"),
        ("segmentation", {"output": "label"}, "--output label; .*labels, head. Did you mean 'labels'"),
        ("classification", {"precision": "int4"}, "--precision int4; expected one of fp32, fp16, int8"),
        ("classification", {"precision": "int8"}, "int8 needs --calibration, .* and --validation"),
        ("classification", {"input_size": (32, 96)}, "input size 32x96 is below the model's stride of 64"),
        ("segmentation", {"input_type": "uint"}, "--input-type uint; .*float32, uint8. Did you mean 'uint8'"),
        ("segmentation", {"input_type": "uint8", "inside": False}, "--no-normalize leaves no uint8 to take"),
        ("segmentation", {"dynamic_batch": True}, "--dynamic-batch: onnx files have batch size 1"),
        ("segmentation", {"opset": 17}, "--opset 17; expected for onnx none"),
        ("classification", {"max_drop": float("nan")}, "--max-drop nan; expected percentage points"),
        ("classification", {"max_drop": -1.0}, "--max-drop -1.0; expected percentage points of at least 0"),
        ("classification", {"images": "absent"}, "--images absent: no such folder"),
        ("classification", {"class_names": ("a", "b")}, "2 class names are given; expected 3"),
        ("classification", {"mean": (0.5,)}, "1 means are given; expected 3"),
        ("segmentation", {"validation": "absent"}, "--validation absent: no such folder"),
    ],
)  # fmt: skip
def test_wrong_requests(weights, runtime, monkeypatch, task, changes, said):
    monkeypatch.setattr(pretrained, "create_model", lambda *_, **__: pytest.fail("a model was built"))
    with pytest.raises(UserError, match=said):
        Export(Request(weights[task], **({"format": "onnx", "input_size": SIZE} | changes)))


def test_folders_without_what_they_are_to_hold(weights, runtime, photos):
    both = {"calibration": str(photos / "empty"), "validation": str(photos / "classes")}
    with pytest.raises(UserError, match=r"--calibration .*empty: no image .found nothing"):
        Export(Request(weights["classification"], "onnx", SIZE, precision="int8", **both))
    for folder, said in ((photos / "classes", "in or below one called 'images'"), (photos, "'images'")):
        with pytest.raises(UserError, match=said):
            Export(Request(weights["segmentation"], "onnx", SIZE, validation=str(folder)))
    with pytest.raises(UserError, match="class 0 is 'cat' in the validation data, but 'ant' in the model"):
        names = ("ant", "bee", "cow")
        Export(
            Request(
                weights["classification"], "onnx", SIZE, class_names=names, validation=str(photos / "classes")
            )
        )


def test_operator_that_the_runtime_lacks_is_one_line(tmp_path, weights, runtime):
    runtime.error = NotImplementedError("no kernel for aten::fancy\nin a graph of many lines")
    said = "onnx cannot take the model: NotImplementedError: no kernel for aten::fancy$"
    with pytest.raises(UserError, match=said):
        run(tmp_path, weights["classification"])
    assert not list(tmp_path.iterdir())


def test_runtime_that_is_not_installed_or_not_known(monkeypatch):
    monkeypatch.setattr(registry.importlib.util, "find_spec", lambda name: None if "quant" in name else name)
    with pytest.raises(
        UserError, match=r"litert needs ai-edge-quantizer, .*pip install 'seaformer-jax\[litert\]'"
    ):
        registry.find("litert")
    with pytest.raises(
        UserError,
        match=r"expected one of onnx, litert, executorch, ncnn, openvino, mnn, coreml, web\. Did you mean 'ncnn'",
    ):
        registry.find("nccn")


def test_a_model_that_does_not_run_here_is_compared_and_says_so(tmp_path, weights, runtime, monkeypatch):
    monkeypatch.setattr(runtime, "RUNS_HERE", False)
    made = run(tmp_path, weights["classification"])
    (row,) = json.loads((made.folder / "report.json").read_text())["precisions"]
    assert row["milliseconds_here"] is None and row["largest"] < 1e-3
    text = (made.folder / "report.md").read_text().splitlines()
    assert text[-1] == "This was not run."
    (cells,) = (line.split("|") for line in text if line.startswith("| fp32"))
    assert [cell.strip() for cell in cells[-3:-1]] == ["", ""]  # Operators outside and milliseconds.
    assert not [line for line in text if "runs in onnx" in line]


def test_precision_that_a_runtime_lacks(weights, runtime):
    runtime.PRECISIONS = ("fp32",)
    with pytest.raises(
        UserError, match="--precision fp16 is not available for onnx, which has fp32; choose one"
    ):
        Export(Request(weights["classification"], "onnx", SIZE, precision="fp16"))


def test_command_line_errors_are_one_line(tmp_path, weights):
    def said(*arguments: str) -> str:
        done = forked.run("convert.export", "--format=onnx", f"--out={tmp_path / 'b'}", *arguments)
        assert done.returncode == 2, done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
        return done.stderr

    size, hostile = "--input-size=64x96", tmp_path / "hostile.pth"
    torch.save({"model": pathlib.Path}, hostile)
    assert "--input-size 512; expected height x width" in said(f"--weights={hostile}", "--input-size=512")
    assert "--mean half; expected numbers" in said(f"--weights={hostile}", size, "--mean=half")
    assert "absent.pth does not exist" in said(f"--weights={tmp_path}/absent.pth", size)
    # Before the weights are read.
    assert "cannot write to --out" in said(f"--weights={hostile}", size, f"--out={hostile}/b")
    assert list(tmp_path.iterdir()) == [hostile]


# The parts


def test_hostile_or_foreign_weights(tmp_path):
    torch.save({"model": pathlib.Path}, tmp_path / "hostile.pth")
    with pytest.raises(UserError, match="could run code and was not loaded"):
        pretrained.load(pretrained.read(tmp_path / "hostile.pth"))
    files.write_state_dict(tmp_path / "other.pth", {"fc.weight": np.zeros((3, 4), np.float32)})
    with pytest.raises(UserError, match=r"of another model than a SeaFormer: .*found fc\.weight"):
        pretrained.load(pretrained.read(tmp_path / "other.pth"))


def test_size_is_told_from_the_weights_and_held_against_the_card(tmp_path, weights):
    state_dict = torch_model.create_model("seaformer_small", 5).state_dict()
    files.write_state_dict(tmp_path / "m.pth", {name: value.numpy() for name, value in state_dict.items()})
    found = pretrained.load(pretrained.read(tmp_path / "m.pth"))
    assert (found.name, found.task, found.mean) == ("seaformer_small", "classification", IMAGENET_MEAN)
    assert found.labels.class_names[4] == "class 4"

    (tmp_path / "m.json").write_text(json.dumps({"model": "seaformer_tiny"}))
    with pytest.raises(UserError, match=r"of another model than seaformer_tiny, the closest: .* names match"):
        pretrained.load(pretrained.read(tmp_path / "m.pth"))
    (tmp_path / "m.json").write_text("{}")
    with pytest.raises(UserError, match=r'm\.json has no "model"'):
        pretrained.load(pretrained.read(tmp_path / "m.pth"))


def test_card_is_followed(tmp_path, weights):
    content = {
        "model": "mini",
        "options": {},
        "class_names": NAMES,
        "mean": [0.1, 0.2, 0.3],
        "labels": {"palette": [[1, 1, 1], [2, 2, 2], [3, 3, 3]], "ignore_label": 3, "id_map": None},
    }
    target = tmp_path / "m.pth"
    target.write_bytes(weights["segmentation"].read_bytes())
    (tmp_path / "m.json").write_text(json.dumps(content))
    found = pretrained.load(pretrained.read(target))
    assert (found.mean, found.std) == ((0.1, 0.2, 0.3), IMAGENET_STD)
    assert found.labels.palette[2] == (3, 3, 3)
    assert found.labels.encode(np.array([[0, 3]], np.uint8), "m").tolist() == [[0, 255]]


def test_centre_is_that_of_the_evaluation():
    rng = np.random.default_rng(0)
    for shape in ((100, 161), (161, 100), (77, 77)):
        image = rng.integers(0, 256, (*shape, 3), np.uint8)
        for interpolation in ("bilinear", "bicubic"):
            expected = resize_and_center_crop(image, 64, 0.875, interpolation)
            found = preparation._centre(image, (64, 64), 0.875, interpolation)
            np.testing.assert_array_equal(found, expected)
    # An input that is not square: the whole height of an image of equal height, and the middle third of its width.
    image = rng.integers(0, 256, (60, 90, 3), np.uint8)
    np.testing.assert_array_equal(preparation._centre(image, (60, 30), 1.0, "bicubic"), image[:, 30:60])


def test_image_of_a_detector_keeps_its_aspect_ratio():
    mean, image = (0.5, 0.25, 0.75), np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    prepared = preparation.Preparation("detection", (32, 80), mean, (1, 1, 1), True, 1.0, "bicubic")
    found = prepared.fit(image)
    assert prepared.photograph(image) == ((32, 32), (32 / 60, 32 / 60)) and found.shape == (32, 80, 3)
    np.testing.assert_array_equal(found[:, :32], resize_image(image, (32, 32)))
    assert (found[:, 32:] == [128, 64, 191]).all()
    np.testing.assert_array_equal(prepared._replace(size=(60, 60)).fit(image), image)


def test_images_of_a_folder_are_evenly_spread(tmp_path):
    """Those of one class or video are neighbours."""
    for value in range(5):
        Image.new("RGB", (2, 2), (value,) * 3).save(tmp_path / f"{value}.png")
    for most, expected in {1: [0], 2: [0, 4], 3: [0, 2, 4], 5: [0, 1, 2, 3, 4], 9: [0, 1, 2, 3, 4]}.items():
        found = preparation.of_folder("images", str(tmp_path), most)
        assert [int(path.stem) for path in found] == expected


def test_seeded_images_are_the_same_every_time():
    first, second = preparation.seeded((40, 56)), preparation.seeded((40, 56))
    assert [image.shape for image in first] == 3 * [(40, 56, 3)]
    np.testing.assert_array_equal(first, second)
