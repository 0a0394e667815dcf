"""`to_torch`, `from_torch` and `init_from`, on runs and files with known weights."""

import json
import pathlib

import jax
import numpy as np
import pytest
import safetensors.numpy
import torch
from absl import logging
from flax import nnx
from ml_collections import ConfigDict

import convert.torch_model
from configs import imagenet, quickstart
from convert import torch_model, weights
from convert.checkpoints import files, starting_weights
from seaformer_jax import create_model
from seaformer_jax.data.shapes import CLASS_NAMES
from seaformer_jax.errors import UserError
from seaformer_jax.models.variables import split_model
from seaformer_jax.training import optim, state, trained, workdir
from seaformer_jax.training.checkpoint import Checkpoints
from tests import forked, toys


def nano_config() -> ConfigDict:
    """Returns the config of the quickstart with the smallest model."""
    config = quickstart.get_config()
    config.model.name = "nano"
    return config


@pytest.fixture(scope="module", autouse=True)
def small_models():
    toys.register()


def run(module: str, *arguments: str) -> str:
    """Runs a command that must succeed, and returns its stderr."""
    done = forked.run(module, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stderr


def random_weights(seed: int, name: str = "nano", num_classes: int = 8) -> dict[str, np.ndarray]:
    """Returns a state dict in which every weight has a value of its own."""
    model, rng = torch_model.create_model(name, num_classes), np.random.default_rng(seed)
    return {
        entry: value.numpy() if "num_batches" in entry else rng.random(value.shape, np.float32)
        for entry, value in model.state_dict().items()
    }


def assert_same_weights(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if "num_batches" not in name:
            np.testing.assert_array_equal(found[name], value, err_msg=name)


def save_run(folder: pathlib.Path, config, last: dict, averaged: dict | None, step: int) -> None:
    """Writes a run on `shapes` after `step` steps."""
    trees = []
    for state_dict in filter(None, (last, averaged)):
        model = create_model(config.model.name, num_classes=8)
        weights.from_torch(model, state_dict)
        trees.append(dict(zip(("params", "batch_stats"), split_model(model), strict=True)))
    workdir.prepare_workdir(folder, config, CLASS_NAMES)
    checkpoints = Checkpoints(folder, config.checkpoint, "top1")
    ema = trees[1] if averaged else {}
    checkpoints.save(state.TrainState(np.int32(step), **trees[0], ema=ema, opt_state={}), step, {}, None)
    checkpoints.close()


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("runs")
    config = nano_config()
    save_run(folder / "averaged", config, random_weights(1), random_weights(2), step=7)
    config.eval.use_ema = False
    save_run(folder / "last", config, random_weights(1), random_weights(2), step=7)
    return folder


# convert.to_torch


def test_to_torch_writes_the_averaged_weights_and_what_to_know_of_them(runs, tmp_path):
    out = tmp_path / "shapes.pth.tar"
    said = run("convert.to_torch", f"--workdir={runs / 'averaged'}", f"--out={out}")
    state_dict = torch.load(out, weights_only=True)
    assert_same_weights({name: value.numpy() for name, value in state_dict.items()}, random_weights(2))
    assert {int(value) for name, value in state_dict.items() if name.endswith("num_batches_tracked")} == {7}

    card = json.loads((tmp_path / "shapes.json").read_text())
    assert set(card.pop("versions")) == {"seaformer-jax", "jax", "flax", "numpy"}
    assert card == {
        "model": "nano",
        "task": "classification",
        "options": {},
        "num_classes": 8,
        "class_names": list(CLASS_NAMES),
        "image_size": 64,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "crop_fraction": 1.0,
        "interpolation": "bicubic",
        "step": 7,
        "weights": "averaged weights of step 7",
        "workdir": "averaged",
    }

    code = "\n".join(line for line in said.splitlines() if " = " in line or "load_state_dict" in line)
    scope = {"torch": torch, "convert": convert, "images": torch.zeros(2, 3, 64, 64)}
    exec(code, scope)  # The code that the command prints works.
    assert scope["logits"].shape == (2, 8)
    assert_same_weights({k: v.numpy() for k, v in scope["model"].state_dict().items()}, random_weights(2))


def test_to_torch_writes_the_last_weights_where_the_run_is_evaluated_with_them(runs, tmp_path):
    run("convert.to_torch", f"--workdir={runs / 'last'}", f"--out={tmp_path / 'm.safetensors'}")
    assert_same_weights(safetensors.numpy.load_file(tmp_path / "m.safetensors"), random_weights(1))
    assert json.loads((tmp_path / "m.json").read_text())["weights"] == "last weights of step 7"


@pytest.mark.parametrize(("option", "folder", "seed"), [("--no-ema", "averaged", 1), ("--ema", "last", 2)])
def test_to_torch_writes_the_weights_that_are_asked_for(runs, tmp_path, option, folder, seed):
    out = tmp_path / "m.safetensors"
    run("convert.to_torch", f"--workdir={runs / folder}", f"--out={out}", option)
    assert_same_weights(safetensors.numpy.load_file(out), random_weights(seed))
    weights = {1: "last", 2: "averaged"}[seed]
    assert json.loads((tmp_path / "m.json").read_text())["weights"] == f"{weights} weights of step 7"


# convert.from_torch


def test_from_torch_makes_a_run_at_step_0_without_its_data(tmp_path):
    official = {
        "epoch": 3,
        "state_dict": {
            name: torch.from_numpy(value) for name, value in random_weights(3, num_classes=9).items()
        },
        "state_dict_ema": {
            name: torch.from_numpy(value) for name, value in random_weights(4, num_classes=9).items()
        },
    }
    torch.save(official, tmp_path / "official.pth.tar")
    folder = tmp_path / "run"
    said = run(
        "convert.from_torch",
        f"--checkpoint={tmp_path / 'official.pth.tar'}",
        "--config=configs/imagenet.py:tiny",
        "--config.model.name=nano",
        f"--config.data.root={tmp_path}",
        f"--workdir={folder}",
    )
    assert 'the classes are called "class 0" to "class 8"' in said

    loaded = trained.load(folder)
    assert loaded.step == 0
    assert loaded.class_names == [f"class {index}" for index in range(9)]
    assert loaded.task.num_classes == 9
    assert_same_weights(weights.to_torch(loaded.model), random_weights(4, num_classes=9))

    # `train` accepts the config and restores the checkpoint into its own state.
    config = imagenet.get_config("tiny")
    config.model.name = "nano"
    config.data.root = str(tmp_path)
    workdir.prepare_workdir(folder, config, loaded.class_names)
    model = create_model("nano", num_classes=9, seed=5)
    optimizer, _ = optim.create(config.optim, config.total_steps, split_model(model)[0])
    checkpoints = Checkpoints(folder, config.checkpoint, "top1")
    restored, _ = checkpoints.restore(state.create(model, optimizer, use_ema=True))
    checkpoints.close()
    assert restored.step == 0
    for tree in (restored.params, restored.ema["params"]):
        expected = split_model(loaded.model)[0]
        jax.tree.map(np.testing.assert_array_equal, tree, expected)


def test_class_names_are_those_of_the_data_where_they_are_as_many(tmp_path):
    for count in (8, 9):
        files.write_state_dict(tmp_path / f"{count}.safetensors", random_weights(5, num_classes=count))
    config = nano_config()
    assert starting_weights.load(tmp_path / "8.safetensors", config).class_names == list(CLASS_NAMES)
    assert starting_weights.load(tmp_path / "9.safetensors", config).class_names[7:] == ["class 7", "class 8"]


# init_from


@pytest.fixture
def log(monkeypatch) -> list[str]:
    lines = []
    monkeypatch.setattr(logging, "info", lambda message, *values: lines.append(message % values))
    return lines


def test_init_from_a_run_takes_its_averaged_weights(runs, log):
    model = create_model("nano", num_classes=8)
    starting_weights.load_into(model, str(runs / "averaged"))
    assert_same_weights(weights.to_torch(model), random_weights(2))
    said = log[-1].splitlines()
    assert said[0] == f"init_from: {runs / 'averaged'}"
    assert said[1] == "134 matched: smb1 20, trans1 112, linear 2"
    assert said[2:] == ["0 missing", "0 unexpected", "0 misshaped"]


def test_init_from_a_file_of_other_classes_keeps_the_fresh_head(tmp_path, log):
    files.write_state_dict(tmp_path / "m.pth", random_weights(6, num_classes=9))
    model = create_model("nano", num_classes=4, seed=2)
    fresh = np.array(model.head.kernel[...])
    starting_weights.load_into(model, str(tmp_path / "m.pth"))
    found, expected = weights.to_torch(model), random_weights(6, num_classes=9)
    np.testing.assert_array_equal(model.head.kernel[...], fresh)
    for name in ("linear.weight", "linear.bias"):
        expected[name] = found[name]
    assert_same_weights(found, expected)
    assert "\n132 matched: " in log[-1]
    assert "\n2 misshaped: linear.bias: found (9,), expected (4,), linear.weight: " in log[-1]


@pytest.mark.parametrize("change", ["size", "missing", "misshaped", "prefix"])
def test_init_from_another_backbone_is_refused_and_leaves_the_model(tmp_path, change):
    name = "smb1.stem_block.0.c.weight"
    state_dict = random_weights(7, "nano_wide" if change == "size" else "nano")
    if change == "missing":
        del state_dict[name]
    if change == "misshaped":
        state_dict[name] = np.zeros((8, 3, 5, 5), np.float32)
    if change == "prefix":
        state_dict = {f"backbone.{name}": value for name, value in state_dict.items()}
    files.write_state_dict(tmp_path / "m.safetensors", state_dict)
    model = create_model("nano", num_classes=8)
    before = [np.array(leaf) for leaf in jax.tree.leaves(nnx.state(model))]
    with pytest.raises(
        UserError, match=r"m\.safetensors has another backbone than the model.* names match; "
    ):
        starting_weights.load_into(model, str(tmp_path / "m.safetensors"))
    for old, new in zip(before, jax.tree.leaves(nnx.state(model)), strict=True):
        np.testing.assert_array_equal(old, new)


def test_run_is_not_loaded_with_the_config_of_another_model(runs):
    with pytest.raises(
        UserError, match=r"averaged are not those of a seaformer_small with 8 classes; use the config"
    ):
        trained.load(runs / "averaged", quickstart.get_config("small"))


def test_averaged_weights_that_a_run_does_not_have(tmp_path):
    config = nano_config()
    config.optim.ema_decay = 0.0
    save_run(tmp_path, config, random_weights(1), None, step=7)
    with pytest.raises(UserError, match=r"has no averaged weights: optim\.ema_decay was 0; leave --ema out"):
        trained.load(tmp_path, use_ema=True)
    assert trained.load(tmp_path, use_ema=False).step == 7
