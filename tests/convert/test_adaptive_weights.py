"""SeaFormer++ with the weights of an ICLR model: equal logits at first, other logits after a training step."""

import jax
import numpy as np
import pytest
from absl import logging
from flax import nnx

from convert import torch_model, torch_segmentation, weights
from convert.checkpoints import files, starting_weights
from seaformer_jax import config as configs
from seaformer_jax import create_model, tasks
from seaformer_jax.errors import UserError
from seaformer_jax.models.variables import split_model
from seaformer_jax.training import state, workdir
from seaformer_jax.training.checkpoint import Checkpoints
from tests import golden
from tests.training import nano

MIRRORS = {"classification": torch_model, "segmentation": torch_segmentation}
IMAGES = golden.images((2, 3, 64, 96), seed=0).transpose(0, 2, 3, 1)


@pytest.fixture
def log(monkeypatch) -> list[str]:
    lines = []
    monkeypatch.setattr(logging, "info", lambda message, *values: lines.append(message % values))
    return lines


def filled(name: str, task: str = "classification", **options) -> dict[str, np.ndarray]:
    """Returns weights for a model of five classes, filled by the rule of the golden vectors."""
    shapes = MIRRORS[task].create_model(name, 5, **options).state_dict().items()
    return golden.fill({entry: tuple(value.shape) for entry, value in shapes})


def logits(model: nnx.Module) -> np.ndarray:
    graphdef, arrays = nnx.split(model)
    return np.asarray(jax.jit(lambda arrays, x: nnx.merge(graphdef, arrays)(x))(arrays, IMAGES))


def gradients(model: nnx.Module) -> dict[str, np.ndarray]:
    """Returns the gradients of a loss on a training batch, by official name."""
    graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)

    def loss(params, stats):
        out = nnx.merge(graphdef, params, stats)(IMAGES, train=True)
        return -jax.nn.log_softmax(out)[..., 0].mean()

    found = jax.jit(jax.grad(loss))(nnx.to_pure_dict(params), nnx.to_pure_dict(stats))
    return weights.to_torch(nnx.merge(graphdef, found, stats))


@pytest.mark.parametrize("task", ["classification", pytest.param("segmentation", marks=pytest.mark.slow)])
def test_official_checkpoint_gives_the_same_logits(tmp_path, log, task):
    files.write_state_dict(tmp_path / "iclr.safetensors", filled("seaformer_tiny", task))
    published, model = (create_model(f"seaformer_{kind}tiny", task, 5) for kind in ("", "plus_"))
    for each in (published, model):
        starting_weights.load_into(each, str(tmp_path / "iclr.safetensors"))
    expected = logits(published)
    assert expected.std() > 0.1
    np.testing.assert_allclose(logits(model), expected, rtol=0, atol=1e-5)
    maps = [name for name in weights.to_torch(model) if weights.is_adaptive(name)]
    assert len(maps) == 8
    assert f"\n8 missing: {', '.join(sorted(maps))}\n" in log[-1]


@pytest.mark.parametrize("task", [pytest.param("segmentation", marks=pytest.mark.slow), "classification"])
def test_training_moves_away_from_the_iclr_model(monkeypatch, tmp_path, task):
    """Starting from an ICLR run, the maps have gradients at once, and a step along them changes the logits."""
    config = nano.get_config() if task == "classification" else nano.get_segmentation_config()
    config.optim.ema_decay = 0.0
    ran = tasks.create(config)
    published = ran.create_model()
    shapes = {name: value.shape for name, value in weights.to_torch(published).items()}
    weights.from_torch(published, golden.fill(shapes))
    save(tmp_path / "run", config, ran, published)

    config.model.adaptive = "both"
    model = tasks.create(config).create_model()
    starting_weights.load_into(model, str(tmp_path / "run"))
    before = logits(model)
    np.testing.assert_allclose(before, logits(published), rtol=0, atol=1e-5)

    found, state_dict = gradients(model), weights.to_torch(model)
    for name in filter(weights.is_adaptive, state_dict):
        assert np.abs(found[name]).max() > 1e-6, name
        state_dict[name] = -10 * found[name] / np.abs(found[name]).max()
    weights.from_torch(model, state_dict)
    assert np.abs(logits(model) - before).max() > 1e-3


def save(folder, config: configs.ConfigDict, task: tasks.Task, model: nnx.Module) -> None:
    """Writes a run after three steps."""
    workdir.prepare_workdir(folder, config, task.class_names)
    checkpoints = Checkpoints(folder, config.checkpoint, task.best_metric)
    arrays = split_model(model)
    checkpoints.save(state.TrainState(np.int32(3), *arrays, ema={}, opt_state={}), 3, {}, None)
    checkpoints.close()


def test_squeeze_alone_starts_both(tmp_path, log):
    state_dict = filled("seaformer_plus_tiny", adaptive="squeeze")
    files.write_state_dict(tmp_path / "m.safetensors", state_dict)
    model = create_model("seaformer_plus_tiny", num_classes=5)
    starting_weights.load_into(model, str(tmp_path / "m.safetensors"))
    found = weights.to_torch(model)
    added = found.keys() - state_dict.keys()
    assert len(added) == 4 and all("expand_map" in name and not found[name].any() for name in added)
    for name, value in state_dict.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("change", ["shared", "a_name_short"])
def test_what_is_no_start_for_the_maps_is_refused(tmp_path, change):
    state_dict = filled("seaformer_plus_tiny", adaptive_shared=change == "shared")
    if change == "a_name_short":
        del state_dict["trans1.transformer_blocks.0.attn.to_q.c.weight"]
    files.write_state_dict(tmp_path / "m.safetensors", state_dict)
    with pytest.raises(UserError, match="has another backbone than the model"):
        starting_weights.load_into(
            create_model("seaformer_plus_tiny", num_classes=5), str(tmp_path / "m.safetensors")
        )


def test_conversion_wants_every_map():
    with pytest.raises(
        UserError, match=r"8 missing \(trans1\.transformer_blocks\.0\.attn\.expand_map\.weight"
    ):
        weights.from_torch(create_model("seaformer_plus_tiny", num_classes=5), filled("seaformer_tiny"))
