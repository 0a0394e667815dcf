"""`to_torch`, `from_torch`, `export` and `run` on detectors with known weights."""

import json

import numpy as np
import pytest
import torch
from etils import epath
from PIL import Image

import convert.torch_detection
from convert import bundle_folder, torch_detection, weights
from convert.bundle import Bundle
from convert.checkpoints import files, pretrained, starting_weights
from convert.export.exporter import Export
from convert.export.preparation import Preparation
from convert.export.request import Request
from convert.labels import boxes
from convert.runtimes import registry
from seaformer_jax import config as configs
from seaformer_jax.errors import UserError
from tests import forked, golden, toys
from tests.convert.alive import write_detector
from tests.convert.test_run import run
from tests.convert.test_segmentation_commands import assert_same, save_run

SIZE = (64, 96)
NAMES = ("cat", "dog", "eel")


def detection_config(**options) -> configs.ConfigDict:
    toys.register()
    config = configs.detection()
    config.model.update({"name": "nano_detection", "neck_width": 8, "tower_convs": 1} | options)
    config.eval.score_threshold = 0.02
    return config


def test_to_torch_writes_weights_and_what_to_know_of_them(tmp_path):
    expected = save_run(tmp_path / "run", detection_config(neck_width=12, anchor_scale=2.0), step=3)
    done = forked.run("convert.to_torch", f"--workdir={tmp_path}/run", f"--out={tmp_path}/det.pth")
    assert done.returncode == 0, done.stderr
    state_dict = torch.load(tmp_path / "det.pth", weights_only=True)
    assert_same({name: value.numpy() for name, value in state_dict.items()}, expected)

    card = json.loads((tmp_path / "det.json").read_text())
    assert card["task"] == "detection" and len(card["class_names"]) == card["num_classes"] > 2
    assert card["options"] == {"neck_width": 12, "tower_convs": 1, "anchor_scale": 2.0}
    assert (card["scale"], card["pad_multiple"], card["score_threshold"]) == ([128, 128], 32, 0.02)
    assert (card["iou_threshold"], card["per_level"], card["per_image"]) == (0.5, 1000, 100)

    code = "\n".join(line for line in done.stderr.splitlines() if " = " in line or "load_state_dict" in line)
    scope = {"torch": torch, "convert": convert, "images": torch.zeros(2, 3, 64, 72)}
    exec(code, scope)  # The code that the command prints works.
    assert scope["deltas"].shape == (*scope["logits"].shape[:2], 4) == (2, 9 * (72 + 20 + 6 + 2 + 1), 4)


def test_official_file_is_loaded_with_its_own_number_of_classes(tmp_path):
    detection_config()
    model = torch_detection.create_model("nano_detection", 21, neck_width=8, tower_convs=1)
    torch.save({"meta": {}, "state_dict": model.state_dict()}, tmp_path / "epoch_12.pth")
    loaded = starting_weights.load(epath.Path(tmp_path / "epoch_12.pth"), detection_config())
    assert loaded.class_names[20] == "class 20"
    assert_same(
        weights.to_torch(loaded.model), {name: value.numpy() for name, value in model.state_dict().items()}
    )
    with pytest.raises(UserError, match=r"another model; .*misshaped"):
        starting_weights.load(epath.Path(tmp_path / "epoch_12.pth"), detection_config(neck_width=12))


def test_weights_of_no_detector_are_refused(tmp_path):
    toys.register()
    model = torch_detection.create_model("nano_detection", 2)
    state_dict = golden.fill({name: tuple(value.shape) for name, value in model.state_dict().items()})
    state_dict["bbox_head.retina_cls.weight"] = np.zeros((13, 8, 3, 3), np.float32)
    with pytest.raises(UserError, match=r"for detection: bbox_head.retina_cls.weight .* has the shape \(13,"):
        weights.class_count(state_dict, "detection")
    files.write_state_dict(epath.Path(tmp_path / "d.pth"), state_dict)
    (tmp_path / "d.json").write_text(json.dumps({"model": "nano_detection", "score_threshold": 2}))
    with pytest.raises(UserError, match=r'd\.json: "score_threshold" is 2; expected a number in'):
        pretrained.read(epath.Path(tmp_path / "d.pth"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    folder = tmp_path_factory.mktemp("detector")
    toys.register()
    request = Request(epath.Path(write_detector(folder, NAMES, SIZE)), "onnx", SIZE)
    with bundle_folder.writing(folder / "b") as temporary:
        Export(request).run(temporary)
    return Bundle.open(folder / "b")


def find(bundle: Bundle, image: np.ndarray) -> boxes.Boxes:
    prepare = Preparation.of_bundle(bundle)
    (head,) = registry.find("onnx").load(bundle)(prepare.exported(prepare.fit(image)))
    settings = boxes.Decoding(SIZE, **bundle.decoding)
    return boxes.numpy_decode(head, settings, prepare.photograph(image))


def write_data(folder, images: list[np.ndarray], found: list[boxes.Boxes]) -> None:
    """Writes images and, as their labels, the boxes that were found, in COCO's format."""
    (folder / "images/val").mkdir(parents=True)
    (folder / "annotations").mkdir()
    rows = []
    for number, (image, each) in enumerate(zip(images, found, strict=True), 1):
        Image.fromarray(image).save(folder / f"images/val/{number}.png")
        for (x1, y1, x2, y2), label in zip(each.boxes.tolist(), each.labels.tolist(), strict=True):
            box = [x1, y1, x2 - x1, y2 - y1]
            about = {"image_id": number, "category_id": 10 + label, "iscrowd": 0}
            rows.append({"id": len(rows) + 1, "bbox": box, "area": box[2] * box[3], **about})
    content = {
        "images": [
            {"id": n, "file_name": f"{n}.png", "height": image.shape[0], "width": image.shape[1]}
            for n, image in enumerate(images, 1)
        ],
        "categories": [{"id": 10 + k, "name": name} for k, name in enumerate(NAMES)],
        "annotations": rows,
    }
    (folder / "annotations/instances_val.json").write_text(json.dumps(content))


def test_boxes_and_average_precision_without_jax(tmp_path, bundle):
    """The labels are the boxes that the bundle finds, so that its average precision is 100 %."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in ((90, 150), (120, 70))]
    found = [find(bundle, image) for image in images]
    write_data(tmp_path, images, found)
    folder = tmp_path / "images/val"
    done = run(
        bundle.folder,
        f"--images={folder}",
        f"--out={tmp_path}/out",
        f"--validation={folder}",
        "--least-score=0.92",
    )
    assert done.returncode == 0, done.stderr
    assert "AP 100.00 % on 2 images" in done.stderr
    assert (tmp_path / "out/1_boxes.png").exists()
    lines = [json.loads(line) for line in (tmp_path / "out/predictions.jsonl").read_text().splitlines()]
    for line, each in zip(lines, found, strict=True):
        count = int((each.scores >= 0.92).sum())
        assert 0 < len(line["boxes"]) == count < len(each.scores)
        assert [row["label"] for row in line["boxes"]] == [NAMES[k] for k in each.labels[:count]]
        np.testing.assert_allclose([row["box"] for row in line["boxes"]], each.boxes[:count], atol=0.02)


def test_validation_without_boxes_or_of_other_classes(tmp_path, bundle):
    image = np.zeros((64, 96, 3), np.uint8)
    nothing = boxes.Boxes(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    write_data(tmp_path, [image], [nothing])
    for folder, said in ((tmp_path / "images/val", "has no boxes"), (tmp_path, "one called 'images'")):
        done = run(bundle.folder, f"--validation={folder}")
        assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1, (
            done.stderr
        )
