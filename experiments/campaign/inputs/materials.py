"""What the wrong inputs are made of: a run, its weights, a bundle, images and data sets, all of them good."""

import json
import pathlib
import shutil

import numpy as np
from PIL import Image

from experiments.campaign import recipe
from experiments.campaign.inputs.case import Case
from experiments.campaign.outcome import describe
from experiments.campaign.server import Command

SIDE = 48  # Pixels along a side of the images.
CLASSES = ("a", "b")
SPLITS = ("train", "val")
_LIMIT = 300.0

PART = "right inputs"
# They must succeed; otherwise the wrong inputs could be refused for another reason than they are meant for.
FOLDER = "--config.data.source=folder --config.data.root={made}/classes"
PAIRS = (
    "--config.data.source=pairs --config.data.root={made}/scenes --config.data.class_names=('ground','thing')"
)
BOXED = (
    "--config.data.source=coco --config.data.root={made}/boxed --config.data.images=images/{{split}} "
    "--config.data.train_split=train --config.data.val_split=val"
)
SHORT = "--config.total_steps=4 --config.eval.every=0 --config.checkpoint.every=0"
CONTROLS = (
    Case(
        PART,
        "train, classes in folders",
        f"seaformer_jax.train --config={recipe.RECIPE} {FOLDER} {SHORT} --workdir={{here}}/new",
        status=0,
        writes=("new/",),
    ),
    Case(
        PART,
        "train, images and masks",
        f"seaformer_jax.train --config={recipe.RECIPE}:segmentation {PAIRS} {SHORT} --workdir={{here}}/new",
        status=0,
        writes=("new/",),
    ),
    Case(
        PART,
        "train, images and boxes",
        f"seaformer_jax.train --config={recipe.RECIPE}:detection {BOXED} {SHORT} --workdir={{here}}/new",
        status=0,
        writes=("new/",),
    ),
    Case(
        PART,
        "evaluate",
        "seaformer_jax.evaluate --workdir={made}/run --out={here}/out",
        status=0,
        writes=("out/",),
    ),
    Case(
        PART,
        "predict",
        "seaformer_jax.predict --workdir={made}/run --images={made}/images --out={here}/out",
        status=0,
        writes=("out/",),
    ),
    Case(
        PART,
        "from_torch",
        f"convert.from_torch --checkpoint={{made}}/model.pth --config={recipe.RECIPE} --workdir={{here}}/new",
        status=0,
        writes=("new/",),
    ),
    Case(
        PART,
        "latency",
        "convert.latency {made}/bundle --out={here}/out/x",
        lambda here, made: (here / "out").mkdir(),
        status=0,
        writes=("out/",),
    ),
)


def make(folder: pathlib.Path, run: pathlib.Path) -> None:
    """Writes the materials into `folder`.

    Args:
        folder: Folder to write into: run/, model.pth and model.json, model.safetensors, bundle/, images/ (pictures),
            classes/ (a data set of classes in folders), scenes/ (one of images and masks), boxed/ (one of images and
            boxes).
        run: Workdir of a complete run.
    """
    folder.mkdir()
    shutil.copytree(run, folder / "run")
    for suffix in (".pth", ".safetensors"):
        _command("convert.to_torch", f"--workdir={run}", f"--out={folder / f'model{suffix}'}")
    weights, size = f"--weights={folder / 'model.pth'}", "--input-size=64x64"
    _command("convert.export", weights, size, "--format=onnx", f"--out={folder / 'bundle'}")
    _write_images(folder)


def _command(module: str, *arguments: str) -> None:
    ended = Command(module, arguments).end(_LIMIT)
    if ended.status != 0:
        raise RuntimeError(f"{module} {' '.join(arguments)} failed: {describe(ended)}")


def _write_images(folder: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(3):
        _save(rng.integers(0, 256, (SIDE, SIDE, 3)), folder / f"images/{index}.png")
    for split in SPLITS:
        for index in range(16):
            picture = rng.integers(0, 256, (SIDE, SIDE, 3))
            _save(picture, folder / f"classes/{split}/{CLASSES[index % 2]}/{index}.png")
            _save(picture, folder / f"scenes/images/{split}/{index}.png")
            _save(picture[..., 0] % 2, folder / f"scenes/annotations/{split}/{index}.png")
            _save(picture, folder / f"boxed/images/{split}/{index}.png")
        _write_boxes(folder / f"boxed/annotations/instances_{split}.json")


def _write_boxes(path: pathlib.Path) -> None:
    """Writes a file in COCO's format: one box in each of the images, of classes by turns."""
    images = [{"id": i, "file_name": f"{i}.png", "width": SIDE, "height": SIDE} for i in range(16)]
    boxes = [
        {"id": i, "image_id": i, "category_id": 1 + i % 2, "bbox": [8, 8, 30, 24], "area": 720, "iscrowd": 0}
        for i in range(16)
    ]
    categories = [{"id": 1 + i, "name": name} for i, name in enumerate(CLASSES)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "categories": categories, "annotations": boxes}))


def _save(pixels: np.ndarray, path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
