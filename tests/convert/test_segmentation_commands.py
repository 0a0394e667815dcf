"""`to_torch`, loading and `init_from`, on segmentation runs with known weights."""

import json
import pathlib

import numpy as np
import pytest
import torch
from etils import epath

import convert.torch_segmentation
from convert import torch_model, torch_segmentation, weights
from convert.checkpoints import files, starting_weights
from seaformer_jax import config as configs
from seaformer_jax import tasks
from seaformer_jax.data.segmentation import label_sets
from seaformer_jax.errors import UserError
from seaformer_jax.models.variables import split_model
from seaformer_jax.training import state, trained, workdir
from seaformer_jax.training.checkpoint import Checkpoints
from tests import forked, golden


def segmentation_config(**options) -> configs.ConfigDict:
    config = configs.segmentation()
    config.model.update(options)
    return config


def save_run(folder: pathlib.Path, config: configs.ConfigDict, step: int) -> dict[str, np.ndarray]:
    """Writes a run on `shapes` after `step` steps; returns its weights by official name."""
    task = tasks.create(config)
    model = task.create_model()
    state_dict = golden.fill({name: value.shape for name, value in weights.to_torch(model).items()})
    weights.from_torch(model, state_dict)
    workdir.prepare_workdir(folder, config, task.class_names)
    params, batch_stats = split_model(model)
    ema = {"params": params, "batch_stats": batch_stats} if config.optim.ema_decay else {}
    checkpoints = Checkpoints(folder, config.checkpoint, task.best_metric)
    checkpoints.save(state.TrainState(np.int32(step), params, batch_stats, ema, opt_state={}), step, {}, None)
    checkpoints.close()
    return state_dict


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if "num_batches" not in name:
            np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_to_torch_writes_the_weights_that_ship_with_the_package(tmp_path):
    forked.run("convert.to_torch", "--weights=camvid", f"--out={tmp_path}/camvid.pth")
    card = json.loads((tmp_path / "camvid.json").read_text())
    assert card["shipped"] == "camvid" and "research" in card["licence"] and "workdir" not in card
    spec = label_sets.camvid()
    assert card["labels"] == {"palette": [list(c) for c in spec.palette], "ignore_label": spec.ignore_label}
    found = files.read_state_dict(epath.Path(tmp_path / "camvid.pth"))
    assert_same(found, weights.to_torch(trained.load_pretrained("camvid").model))


def test_to_torch_writes_weights_and_what_to_know_of_them(tmp_path):
    config = segmentation_config(fusion="add", detail_input="upconv")
    expected = save_run(tmp_path / "run", config, step=3)
    done = forked.run("convert.to_torch", f"--workdir={tmp_path}/run", f"--out={tmp_path}/seg.pth")
    assert done.returncode == 0, done.stderr
    state_dict = torch.load(tmp_path / "seg.pth", weights_only=True)
    assert_same({name: value.numpy() for name, value in state_dict.items()}, expected)

    card = json.loads((tmp_path / "seg.json").read_text())
    assert card["task"] == "segmentation"
    assert card["options"] == {"detail_input": "upconv", "fusion": "add"}
    assert card["num_classes"] == len(card["class_names"]) > 2
    assert (card["scale"], card["size_divisor"], card["mode"]) == ([128, 128], 0, "whole")
    assert card["crop_size"] == [128, 128]

    code = "\n".join(line for line in done.stderr.splitlines() if " = " in line or "load_state_dict" in line)
    scope = {"torch": torch, "convert": convert, "images": torch.zeros(2, 3, 64, 72)}
    exec(code, scope)  # The code that the command prints works.
    assert scope["logits"].shape == (2, card["num_classes"], 8, 9)


def test_official_file_is_loaded_with_its_own_number_of_classes(tmp_path):
    state_dict = torch_segmentation.create_model("seaformer_tiny", num_classes=21).state_dict()
    torch.save({"meta": {"epoch": 1}, "state_dict": state_dict}, tmp_path / "iter_160000.pth")
    loaded = starting_weights.load(tmp_path / "iter_160000.pth", segmentation_config())
    assert loaded.class_names[20] == "class 20"
    found = weights.to_torch(loaded.model)
    assert_same(found, {name: value.numpy() for name, value in state_dict.items()})


def test_classifier_is_not_loaded_as_a_segmentation_model(tmp_path):
    state_dict = torch_model.create_model("seaformer_tiny", num_classes=8).state_dict()
    torch.save(state_dict, tmp_path / "cls.pth")
    with pytest.raises(UserError, match=r"for segmentation: decode_head\.conv_seg\.weight .* is missing"):
        starting_weights.load(tmp_path / "cls.pth", segmentation_config())
    files.write_state_dict(
        tmp_path / "seg.pth", weights.to_torch(tasks.create(segmentation_config()).create_model())
    )
    with pytest.raises(UserError, match=r"for classification: linear\.weight .* is missing"):
        starting_weights.load(tmp_path / "seg.pth", configs.default())


def test_init_from_the_run_of_a_classifier(tmp_path):
    expected = save_run(tmp_path / "classifier", configs.default(), step=5)
    model = tasks.create(segmentation_config()).create_model()
    starting_weights.load_into(model, str(tmp_path / "classifier"))
    found = {n: value for n, value in weights.to_torch(model).items() if n.startswith("backbone.")}
    backbone = {f"backbone.{n}": value for n, value in expected.items() if not n.startswith("linear.")}
    assert_same(found, backbone)


def test_run_is_loaded_with_its_own_options(tmp_path):
    expected = save_run(tmp_path / "run", segmentation_config(fusion_widths=(24, 40)), step=2)
    assert_same(weights.to_torch(trained.load(tmp_path / "run").model), expected)
