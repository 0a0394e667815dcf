"""From a config to PyTorch and back through the real commands, and three steps of every recipe."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from absl import flags
from flax import nnx
from PIL import Image

from configs import (
    ade20k,
    bccd,
    camvid,
    cityscapes,
    coco,
    coco_stuff,
    distill_ade20k,
    distill_camvid,
    distill_cityscapes,
    distill_imagenet,
    imagenet,
    pascal_context,
    quickstart,
    swin_imagenet,
    trashnet,
)
from convert import torch_model
from convert.checkpoints import files
from convert.weights import to_torch
from seaformer_jax import config_check, create_model, list_models, tasks
from seaformer_jax.data import images
from seaformer_jax.detection.anchors import level_counts
from seaformer_jax.models.variables import split_model
from seaformer_jax.training import loop, optim, trained
from tests import forked, toys
from tests.data.detection import files as coco_files
from tests.paths import REPOSITORY
from tests.training import distilled

# Recipes choose a size; its SeaFormer++ is `model.name`.
SIZES = [name.removeprefix("seaformer_") for name in list_models() if "_plus_" not in name]
RECIPES = {
    "imagenet": (imagenet, [size + optimizer for size in SIZES for optimizer in ("", ",lamb", ",lars")]),
    "swin_imagenet": (swin_imagenet, ["tiny"]),
    "quickstart": (quickstart, SIZES),
    "trashnet": (trashnet, SIZES),
    "ade20k": (ade20k, ["tiny", *(f"{size}_{batch}" for size in SIZES for batch in ("2x8", "4x8"))]),
    "cityscapes": (cityscapes, [f"{size}_{scale}" for size in SIZES for scale in ("1024x512", "1024x1024")]),
    "pascal_context": (pascal_context, [f"{size}_{classes}" for size in SIZES for classes in (59, 60)]),
    "coco_stuff": (coco_stuff, SIZES),
    "camvid": (camvid, SIZES),
    "bccd": (bccd, SIZES),
    "coco": (coco, [size + optimizer for size in SIZES for optimizer in ("", ",sgd")]),
    "distill_ade20k": (distill_ade20k, ["tiny", "large_4x8"]),
    "distill_camvid": (distill_camvid, SIZES),
    "distill_cityscapes": (distill_cityscapes, ["tiny_1024x512", "base_1024x1024"]),
    "distill_imagenet": (distill_imagenet, ["tiny", "base,lamb"]),
}
SHRUNK = {
    "total_steps": 3,
    "optim.schedule.warmup_steps": 1,
    "batch_size": 8,
    "data.source": "shapes",
    "data.image_size": 32,
    "data.train_size": 64,
    "data.val_size": 24,
    "data.workers": 0,
    "eval.batch_size": 8,
}
# What the recipes of a task need besides; the models are the tests' smallest.
SMALL = {
    "classification": {"model.name": "nano"},
    "segmentation": {
        "data.base_scale": (48, 48),
        "data.crop_size": (32, 40),
        "eval.scale": (48, 48),
        "model.name": "nano_segmentation",
    },
    "detection": {
        "data.scale": (64, 64),
        "data.buckets": ((64, 64),),
        "eval.scale": (64, 64),
        "model.name": "nano_detection",
        "model.neck_width": 8,
        "model.tower_convs": 1,
        "init_from": "",
    },
}
# Students see half of that.
TAUGHT = {"data.image_size": 64}


# The steps of a run are the same whatever the size; one run of a published model is kept.
SIZE_PARAMS = ["nano", pytest.param("seaformer_tiny", marks=pytest.mark.slow)]
# Model of a size for segmentation, its teacher, and the channels of the teacher's features.
SCENES = {
    "nano": ("nano_segmentation", "nano_segmentation_wide", 12),
    "seaformer_tiny": ("seaformer_tiny", "seaformer_small", 128),
}


def run_forked(module: str, *arguments: object, status: int = 0) -> str:
    """Runs a command that must end with `status`; returns its stderr."""
    done = forked.run(module, *arguments, timeout=600)
    assert done.returncode == status, done.stderr
    return done.stderr


def run_process(module: str, *arguments: object, status: int = 0) -> str:
    """As `run_forked`, in a process that imports everything anew."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == status, done.stderr
    return done.stderr


@pytest.fixture
def run(size):
    """The way commands run: those of a published model are processes of their own."""
    toys.register()
    return run_forked if size == "nano" else run_process


@pytest.mark.parametrize("size", SIZE_PARAMS)
def test_train_evaluate_predict_to_pytorch_and_back(size, run, tmp_path, compile_cache):
    run_folder, weights, back = tmp_path / "run", tmp_path / "model.pth", tmp_path / "back"
    options = ["--config=configs/quickstart.py", f"--config.compilation_cache={compile_cache}"]
    options += [f"--config.{key}={value}" for key, value in SHRUNK.items()]
    options += [f"--config.model.name={size}"]

    said = run("seaformer_jax.train", *options, f"--workdir={run_folder}")
    assert "step 3/3 (100.0%) loss " in said
    last = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()][-1]

    run("seaformer_jax.evaluate", f"--workdir={run_folder}")
    results = json.loads((run_folder / "results.json").read_text())
    assert results["step"] == 3
    assert (results["images"], results["top1"]) == (last["val/images"], last["val/top1"])
    assert results["images"] == 24

    photos = tmp_path / "photos"
    save_images(photos)
    (photos / "broken.png").write_bytes(b"nothing")
    said = run(
        "seaformer_jax.predict",
        f"--workdir={run_folder}",
        f"--images={photos}",
        f"--out={tmp_path / 'predicted'}",
    )
    rows = [json.loads(line) for line in (tmp_path / "predicted/predictions.jsonl").read_text().splitlines()]
    assert [pathlib.Path(row["image"]).name for row in rows] == ["0.png", "1.png", "2.png"]
    (photos / "broken.png").unlink()
    assert "broken.png: cannot identify image file" in said
    assert "3 images (1 skipped), predictions in" in said
    assert images.decode(tmp_path / "predicted/contact_sheet.png", "sheet").ndim == 3

    run("seaformer_jax.evaluate", f"--workdir={run_folder}", "--checkpoint=best", "--no-ema")
    run("convert.to_torch", f"--workdir={run_folder}", f"--out={weights}", "--checkpoint=3")
    logits = check_against_pytorch(trained.load(run_folder), weights, photos)
    names, top = trained.load(run_folder).class_names, [row["top"][0] for row in rows]
    assert [answer["label"] for answer in top] == [names[index] for index in logits.argmax(1)]
    probabilities = torch.softmax(torch.from_numpy(logits), 1).amax(1).numpy()
    np.testing.assert_allclose([answer["probability"] for answer in top], probabilities, atol=1e-5)

    run("convert.from_torch", f"--checkpoint={weights}", *options, f"--workdir={back}")
    run("seaformer_jax.evaluate", f"--workdir={back}")
    again = json.loads((back / "results.json").read_text())
    assert again == results | {"step": 0, "weights": str(back)}


def save_images(folder: pathlib.Path) -> None:
    folder.mkdir()
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")


def check_against_pytorch(run: trained.Trained, weights: pathlib.Path, photos: pathlib.Path) -> np.ndarray:
    """Compares the run's logits with those of the exported weights in PyTorch, which it returns."""
    card = json.loads(weights.with_suffix(".json").read_text())
    model = torch_model.create_model(card["model"], card["num_classes"]).eval()
    model.load_state_dict(torch.load(weights, weights_only=True), strict=True)
    pixels = np.stack([images.decode(path, path.name) for path in sorted(photos.iterdir())])
    normalized = (pixels / 255 - card["mean"]) / card["std"]
    with torch.inference_mode():
        expected = model(torch.tensor(normalized.transpose(0, 3, 1, 2), dtype=torch.float32)).numpy()
    graphdef, state = nnx.split(run.model)
    forward = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x))
    found = forward(state, jnp.asarray(normalized, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    return expected


TRACED: dict[tuple, tuple[nnx.Module, jax.ShapeDtypeStruct]] = {}


def traced(task: tasks.Task, images: jax.ShapeDtypeStruct) -> tuple[nnx.Module, jax.ShapeDtypeStruct]:
    """Returns the abstract model and logits of a task; those that differ in training only are traced once."""
    options = {key: value for key, value in task.config.model.items() if key != "bn_groups"}
    key = (type(task), str(sorted(options.items())), task.config.dtype, images.shape)
    if key not in TRACED:
        model = nnx.eval_shape(task.create_model)
        graphdef, state = nnx.split(model)
        logits = jax.eval_shape(lambda state, x: nnx.merge(graphdef, state)(task.prepare(x)), state, images)
        TRACED[key] = model, logits
    return TRACED[key]


# `make test` builds the first variant of every recipe.
VARIANTS = [
    pytest.param(name, variant, marks=pytest.mark.slow if number else ())
    for name, (_, variants) in RECIPES.items()
    for number, variant in enumerate(variants)
]


@pytest.mark.parametrize(("recipe", "variant"), VARIANTS)
def test_every_variant_builds(recipe, variant):
    config = RECIPES[recipe][0].get_config(variant)
    config_check.check(config)
    task = tasks.create(config, [f"class {index}" for index in range(10)])
    images = task.example_batches(2)[0]["image"]
    model, logits = traced(task, images)
    if task.task_type == "detection":
        logits, deltas = logits
        assert deltas.shape == (*logits.shape[:2], 4)
    sides = {
        "classification": [],
        "segmentation": [side // 8 for side in images.shape[1:3]],
        "detection": [sum(level_counts(*images.shape[1:3]))],
    }
    assert logits.shape == (2, *sides[task.task_type], 10)
    optim.create(config.optim, config.total_steps, split_model(model)[0])  # Its patterns match.


def test_every_recipe_is_listed():
    assert RECIPES.keys() == {path.stem for path in (REPOSITORY / "configs").glob("[!_]*.py")}


# The quickstart is trained by the commands above.
TRAINED_RECIPES = [name for name in RECIPES if name != "quickstart"]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", TRAINED_RECIPES)
def test_every_recipe_trains(recipe, tmp_path):
    flags.FLAGS.mark_as_parsed()
    get_config, variants = RECIPES[recipe][0].get_config, RECIPES[recipe][1]
    config = get_config(next(variant for variant in variants if variant.startswith("tiny")))
    toys.register()
    shrunk = SHRUNK | SMALL[tasks.task_type(config)]
    config.update_from_flattened_dict(shrunk | (TAUGHT if "teacher" in config else {}))
    if "crop_size" in config.data and "teacher" in config:
        config.data.crop_size = (64, 80)
    config_check.check(config)
    task = tasks.create(config)
    if "teacher" in config:
        task = task.with_teacher(distilled.teacher(task.task_type))
    results = loop.train(task.config, task, task.create_model(), tmp_path)
    assert results["images"] == 24
    assert np.isfinite(results[task.best_metric])
    steps = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [np.isfinite(row["train/loss"]) for row in steps if "train/loss" in row] == [True]


@pytest.fixture
def frames(tmp_path) -> pathlib.Path:
    """Four frames and masks in CamVid's layout: the sky above the road, a car, void pixels."""
    for split in ("train", "val"):
        for kind in ("images", "annotations"):
            (tmp_path / "camvid" / kind / split).mkdir(parents=True)
        for index in range(4):
            mask = np.repeat([0, 3], [40, 56])[:, None].repeat(128, 1).astype(np.uint8)
            mask[50:70, 20 + 10 * index : 60 + 10 * index], mask[:8] = 8, 11
            pixels = np.random.default_rng(index).integers(0, 60, (96, 128, 3)) + 15 * mask[..., None]
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"camvid/images/{split}/{index}.png")
            Image.fromarray(mask).save(tmp_path / f"camvid/annotations/{split}/{index}.png")
    return tmp_path / "camvid"


@pytest.mark.parametrize("size", SIZE_PARAMS)
def test_segmentation_from_a_classifier_to_pictures(size, run, frames, tmp_path, compile_cache):
    """init_from, training, evaluation with overlays, prediction with heat maps, by the real commands."""
    name, classifier, workdir = SCENES[size][0], tmp_path / "classifier.safetensors", tmp_path / "run"
    files.write_state_dict(classifier, to_torch(create_model(name, num_classes=3, seed=5)))
    options = ["--config=configs/camvid.py:tiny", f"--config.compilation_cache={compile_cache}"]
    options += [f"--config.model.name={name}"]
    options += [f"--config.data.root={frames}", f"--config.init_from={classifier}", "--config.batch_size=2"]
    options += [
        "--config.total_steps=2",
        "--config.optim.schedule.warmup_steps=1",
        "--config.data.crop_size=(64,64)",
        "--config.data.base_scale=(96,64)",
    ]
    options += ["--config.eval.scale=(96,64)", "--config.eval.batch_size=2"]

    said = run("seaformer_jax.train", *options, f"--workdir={workdir}")
    assert "step 2/2 (100.0%) loss " in said and "init_from" in said
    shown = tmp_path / "shown"
    run("seaformer_jax.evaluate", f"--workdir={workdir}", f"--show-dir={shown}")
    results = json.loads((workdir / "results.json").read_text())
    last = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()][-1]
    assert results["images"] == 4
    assert [results[name] for name in ("mIoU", "mAcc", "aAcc")] == [
        last[f"val/{name}"] for name in ("mIoU", "mAcc", "aAcc")
    ]
    assert "| Road |" in (workdir / "per_class.md").read_text()
    assert [Image.open(path).size for path in sorted(shown.iterdir())] == [(256, 96)] * 4

    predicted = tmp_path / "predicted"
    photos = f"--images={frames}/images/val/[01].png"
    run("seaformer_jax.predict", f"--workdir={workdir}", photos, f"--out={predicted}", "--heatmap")
    kinds = ("heatmap", "mask", "overlay")
    assert {path.name for path in predicted.glob("*.png")} == {
        *(f"{index}_{kind}.png" for index in range(2) for kind in kinds),
        "legend.png",
    }


@pytest.mark.slow
@pytest.mark.parametrize("size", SCENES)
def test_distillation_from_a_run_to_pytorch(size, run, frames, tmp_path, compile_cache):
    """A student of half resolution, by the real commands; another teacher is refused when it is resumed."""
    workdir, weights, back = tmp_path / "run", tmp_path / "student.safetensors", tmp_path / "back"
    student, taught_by, width = SCENES[size]
    teacher = tmp_path / "teacher.safetensors"
    files.write_state_dict(teacher, to_torch(create_model(taught_by, "segmentation", 11, seed=5)))
    options = ["--config=configs/distill_camvid.py:tiny", f"--config.compilation_cache={compile_cache}"]
    options += [f"--config.model.name={student}"]
    options += [f"--config.data.root={frames}", "--config.batch_size=2", "--config.total_steps=2"]
    options += ["--config.optim.schedule.warmup_steps=1"]
    options += ["--config.data.crop_size=(64,64)", "--config.data.base_scale=(96,64)"]
    options += ["--config.eval.scale=(96,64)", "--config.eval.batch_size=2"]
    teaching = [f"--config.teacher.source={teacher}", f"--config.teacher.model={taught_by}"]
    options += [f"--config.distillation.{name}_weight=1" for name in ("cross", "output")]

    said = run("seaformer_jax.train", *options, *teaching, f"--workdir={workdir}")
    assert "step 2/2 (100.0%) loss " in said and f"features of {width} channels" in said
    row = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[0])
    parts = sum(row[f"train/{name}"] for name in ("ce", "cross", "feature", "output"))
    assert row["train/loss"] == pytest.approx(parts, rel=1e-5)
    run("seaformer_jax.evaluate", f"--workdir={workdir}")
    results = json.loads((workdir / "results.json").read_text())
    photos = f"--images={frames}/images/val/0.png"
    run("seaformer_jax.predict", f"--workdir={workdir}", photos, f"--out={tmp_path / 'out'}", "--heatmap")
    assert Image.open(tmp_path / "out/0_mask.png").size == Image.open(tmp_path / "out/0_heatmap.png").size

    run("convert.to_torch", f"--workdir={workdir}", f"--out={weights}")
    card = json.loads(weights.with_suffix(".json").read_text())
    assert card["task"] == "segmentation"
    assert card["options"] == {"upsample_ratio": 2.0, "upsample_width": width}
    run("convert.from_torch", f"--checkpoint={weights}", *options, f"--workdir={back}")
    run("seaformer_jax.evaluate", f"--workdir={back}")
    again = json.loads((back / "results.json").read_text())
    assert again == results | {"step": 0, "weights": str(back)}

    files.write_state_dict(teacher, to_torch(create_model(taught_by, "segmentation", 11, seed=6)))
    said = run("seaformer_jax.train", *options, *teaching, f"--workdir={workdir}", status=2)
    assert "teacher.sha256 was " in said.splitlines()[-1], said


@pytest.fixture
def cells(tmp_path) -> pathlib.Path:
    """A small data set in COCO's format, in BCCD's folders."""
    for split in ("train", "val"):
        coco_files.write(tmp_path / "cells", coco_files.content(), split)
    return tmp_path / "cells"


def test_detection_from_weights_of_the_package_to_pictures(cells, tmp_path, compile_cache):
    """init_from, training with two shapes of batches, evaluation, prediction, by the real commands."""
    workdir, starting = tmp_path / "run", tmp_path / "classifier.safetensors"
    toys.register()
    files.write_state_dict(starting, to_torch(create_model("nano_detection", num_classes=3, seed=5)))
    options = ["--config=configs/bccd.py:tiny", f"--config.compilation_cache={compile_cache}"]
    changes = SMALL["detection"] | {
        "init_from": starting,
        "batch_size": 1,
        "total_steps": 4,
        "optim.schedule.warmup_steps": 1,
        "data.root": cells,
        "eval.batch_size": 2,
        "eval.score_threshold": 0,
    }
    del (
        changes["data.scale"],
        changes["data.buckets"],
        changes["eval.scale"],
    )  # A tuple is added to, not replaced.
    options += [f"--config.{key}={value}" for key, value in changes.items()]
    options += ["--config.data.scale=(96,64)", "--config.data.buckets=((64,96),(96,64))"]
    options += ["--config.eval.scale=(96,64)"]

    said = run_forked("seaformer_jax.train", *options, f"--workdir={workdir}")
    assert "step 4/4 (100.0%) loss " in said and "init_from" in said
    assert said.count("training step compiled") == 2
    run_forked("seaformer_jax.evaluate", f"--workdir={workdir}", f"--show-dir={tmp_path / 'shown'}")
    results = json.loads((workdir / "results.json").read_text())
    last = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()][-1]
    assert results["images"] == 3 and results["AP"] == last["val/AP"]
    assert "| ant | 1 |" in (workdir / "per_class.md").read_text()
    boxes = json.loads((workdir / "detections.json").read_text())
    assert {box["image_id"] for box in boxes} == {3, 5, 7} and {b["category_id"] for b in boxes} <= {2, 4, 9}
    assert [Image.open(path).size for path in sorted((tmp_path / "shown").iterdir())] == [
        (120, 40),
        (80, 60),
        (120, 40),
    ]
    predicted = tmp_path / "predicted"
    run_forked(
        "seaformer_jax.predict", f"--workdir={workdir}", f"--images={cells}/images/val", f"--out={predicted}"
    )
    rows = [json.loads(line) for line in (predicted / "predictions.jsonl").read_text().splitlines()]
    assert [row["picture"] for row in rows] == ["a_boxes.png", "b_boxes.png", "c_boxes.png"]
    assert all(set(box) == {"label", "score", "box"} for row in rows for box in row["boxes"])
