"""`convert.run`: predictions and scores of a bundle equal PyTorch's, where JAX and PyTorch cannot be imported."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from convert.bundle import NATIVE
from convert.export.preparation import Preparation
from tests.convert import small_bundles
from tests.convert.small_bundles import MEAN, NAMES, SIZE, STD
from tests.paths import REPOSITORY

# Runs a module as `python -m` does, after making the import of others an error.
_WITHOUT = """
import runpy, sys
for name in {blocked}:
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
BLOCKED = ("jax", "jaxlib", "flax", "torch")


def run(*arguments: object, blocked=BLOCKED) -> subprocess.CompletedProcess:
    code = _WITHOUT.format(blocked=blocked)
    command = [sys.executable, "-c", code, "convert.run", *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)


def photos(folder, count: int) -> list[np.ndarray]:
    """Writes photographs, wider than the input, and returns them."""
    folder.mkdir(parents=True)
    found = list(np.random.default_rng(0).integers(0, 256, (count, 90, 150, 3), np.uint8))
    for number, pixels in enumerate(found):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return found


def nearest(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Takes the label at floor(position * old size / new size) for every position."""
    rows, columns = (np.arange(new) * old // new for new, old in zip(size, labels.shape, strict=True))
    return labels[rows][:, columns]


def in_torch(model: torch.nn.Module, task: str, image: np.ndarray) -> torch.Tensor:
    """Returns the logits [1, C, ...] for a photograph."""
    fitted = Preparation(task, SIZE, MEAN, STD, False, 0.875, "bicubic").fit(image)
    normalized = ((fitted / 255 - MEAN) / STD).astype(np.float32)
    with torch.no_grad():
        return model(torch.from_numpy(normalized.transpose(2, 0, 1)[None]))


@pytest.mark.parametrize(
    "format_", ["onnx", *(pytest.param(f, marks=pytest.mark.slow) for f in (*NATIVE[1:], "web"))]
)
def test_masks_and_miou(tmp_path, format_):
    model = small_bundles.network("segmentation")
    (tmp_path / "b").mkdir()
    made = small_bundles.write(tmp_path / "b", model, "segmentation", format_, "logits8")
    found = photos(tmp_path / "set/images/val", 3)
    (tmp_path / "set/images/val/3.png").write_text("no image")
    # The masks are what the model predicts for the first photograph, and one class for the others.
    logits = [in_torch(model, "segmentation", image) for image in found]
    resized = [torch.nn.functional.interpolate(each, SIZE, mode="bilinear").argmax(1)[0] for each in logits]
    expected = [nearest(each.numpy().astype(np.uint8), (90, 150)) for each in resized]
    masks = tmp_path / "set/annotations/val"
    masks.mkdir(parents=True)
    for number, mask in enumerate([expected[0], *(np.zeros_like(mask) for mask in expected[1:])]):
        Image.fromarray(mask).save(masks / f"{number}.png")

    images = f"--images={tmp_path}/set/images/val"
    blocked = BLOCKED[:-1] if format_ == "executorch" else BLOCKED
    done = run(made.folder, images, f"--out={tmp_path}/out", blocked=blocked)
    assert done.returncode == 0, done.stderr
    assert "3 of 4 images, predictions in" in done.stderr and "skipped: " in done.stderr
    for number, mask in enumerate(expected):
        assert np.mean(np.asarray(Image.open(tmp_path / f"out/{number}_mask.png")) == mask) > 0.999
    names = {path.name for path in (tmp_path / "out").iterdir()}
    pictures = {f"{number}_{kind}.png" for number in range(3) for kind in ("mask", "overlay")}
    assert names == pictures | {"legend.png", "predictions.jsonl"}

    (tmp_path / "set/images/val/3.png").unlink()
    done = run(made.folder, f"--validation={tmp_path}/set/images/val", blocked=blocked)
    # Of each class: pixels in the mask and in the prediction, over those in either; at the size of the input.
    truth = np.stack([nearest(expected[0], SIZE), *(np.zeros(SIZE) for _ in resized[1:])])
    predicted = np.stack([each.numpy() for each in resized])
    ratios = [
        np.sum((truth == k) & (predicted == k)) / np.sum((truth == k) | (predicted == k))
        for k in range(len(NAMES))
    ]
    score = float(done.stderr.split("mIoU ")[1].split(" %")[0])
    assert score == pytest.approx(100 * np.mean(ratios), abs=0.5), done.stderr


def test_classes_and_accuracy(tmp_path):
    model = small_bundles.network("classification")
    (tmp_path / "b").mkdir()
    made = small_bundles.write(tmp_path / "b", model, "classification", "onnx", "logits")
    found = photos(tmp_path / "val/cat", 4)
    for name in NAMES[1:]:
        (tmp_path / "val" / name).mkdir()
        Image.fromarray(found[0]).save(tmp_path / "val" / name / "again.png")
    shares = [in_torch(model, "classification", image).softmax(1)[0].numpy() for image in found]

    done = run(
        made.folder,
        f"--images={tmp_path}/val/cat/*.png",
        f"--out={tmp_path}/out",
        f"--validation={tmp_path}/val",
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/contact_sheet.png").exists()
    lines = [json.loads(line) for line in (tmp_path / "out/predictions.jsonl").read_text().splitlines()]
    for line, share in zip(lines, shares, strict=True):
        order = np.argsort(-share)
        assert [row["label"] for row in line["top"]] == [NAMES[k] for k in order]
        np.testing.assert_allclose([row["probability"] for row in line["top"]], share[order], atol=1e-4)
    right = sum(share.argmax() == 0 for share in shares) + (shares[0].argmax() != 0)
    assert f"top1 {100 * right / 6:.2f} % on 6 images" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--images=a.jpg", "--out=o"], "found 0 bundles; expected one folder that convert.export wrote"),
        (["b"], "give --images with --out, to predict, or --validation, to score"),
        (["b", "--images=a.jpg"], "give --images with --out"),
        (["absent", "--images=a.jpg", "--out=o"], "absent is no bundle"),
    ],
)
def test_wrong_command_lines(arguments, said):
    done = run(*arguments)
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1
