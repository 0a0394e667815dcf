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

from configs import imagenet, quickstart, trashnet
from convert import torch_model
from seaformer_jax import config_check, list_models, tasks
from seaformer_jax.data import images
from seaformer_jax.training import loop, trained

REPOSITORY = pathlib.Path(__file__).parents[2]
SIZES = [name.removeprefix("seaformer_") for name in list_models()]
RECIPES = {
    "imagenet": (imagenet, [size + optimizer for size in SIZES for optimizer in ("", ",lamb", ",lars")]),
    "quickstart": (quickstart, SIZES),
    "trashnet": (trashnet, SIZES),
}
SHRUNK = {
    "total_steps": 3,
    "batch_size": 8,
    "data.source": "shapes",
    "data.image_size": 32,
    "data.train_size": 64,
    "data.val_size": 24,
    "data.workers": 0,
    "eval.batch_size": 8,
}


def run(module: str, *arguments: object) -> str:
    """Runs a command that must succeed; returns what it says."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.slow
def test_train_evaluate_predict_to_pytorch_and_back(tmp_path):
    run_folder, weights, back = tmp_path / "run", tmp_path / "model.pth", tmp_path / "back"
    options = ["--config=configs/quickstart.py", f"--config.compilation_cache={tmp_path / 'xla'}"]
    options += [f"--config.{key}={value}" for key, value in SHRUNK.items()]

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
    run(
        "seaformer_jax.predict",
        f"--workdir={run_folder}",
        f"--images={photos}",
        f"--out={tmp_path / 'predicted'}",
    )
    rows = [json.loads(line) for line in (tmp_path / "predicted/predictions.jsonl").read_text().splitlines()]
    assert [pathlib.Path(row["image"]).name for row in rows] == ["0.png", "1.png", "2.png"]
    assert images.decode(tmp_path / "predicted/contact_sheet.png", "sheet").ndim == 3

    run("convert.to_torch", f"--workdir={run_folder}", f"--out={weights}")
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
    from PIL import Image

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


@pytest.mark.parametrize(
    ("recipe", "variant"), [(name, v) for name, (_, all_) in RECIPES.items() for v in all_]
)
def test_every_variant_builds(recipe, variant):
    config = RECIPES[recipe][0].get_config(variant)
    config_check.check(config)
    task = tasks.create(config, [f"class {index}" for index in range(10)])
    images = jax.ShapeDtypeStruct((2, config.data.image_size, config.data.image_size, 3), jnp.float32)
    model = nnx.eval_shape(task.create_model)
    graphdef, state = nnx.split(model)
    assert jax.eval_shape(lambda state, x: nnx.merge(graphdef, state)(x), state, images).shape == (2, 10)


def test_every_recipe_is_listed():
    assert RECIPES.keys() == {path.stem for path in (REPOSITORY / "configs").glob("[!_]*.py")}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["imagenet", "trashnet"])  # quickstart: above
def test_every_recipe_trains(recipe, tmp_path):
    flags.FLAGS.mark_as_parsed()
    config = RECIPES[recipe][0].get_config("tiny")
    config.update_from_flattened_dict(SHRUNK)
    config_check.check(config)
    task = tasks.create(config)
    results = loop.train(config, task, task.create_model(), tmp_path)
    assert results["images"] == 24
    assert np.isfinite(results["loss"])
    steps = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [np.isfinite(row["train/loss"]) for row in steps if "train/loss" in row] == [True]
