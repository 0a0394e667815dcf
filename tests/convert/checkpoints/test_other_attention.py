"""Files of models with another attention, and of Swin: the card has their options, and JAX and PyTorch build them."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from convert import to_torch, weights
from convert.checkpoints import files, pretrained
from seaformer_jax import config as configs
from seaformer_jax import create_model
from seaformer_jax.models.swin_config import SWINS, SwinConfig
from tests import golden, toys

OPTIONS = {"attention": "window", "attention_window": 4, "attention_widths": (8, 12)}


@pytest.fixture(autouse=True)
def known(monkeypatch):
    toys.register()
    monkeypatch.setitem(SWINS, "swin_tiny", SwinConfig(width=16, depths=(1, 2), heads=(1, 2)))


@pytest.mark.parametrize(
    ("name", "task", "options"),
    [
        ("mini", "segmentation", OPTIONS),
        ("mini", "classification", {"attention": "enhancement"}),
        ("swin_tiny", "classification", {"attention": "sea"}),
    ],
)
def test_file_with_a_card_is_built_on_both_sides(tmp_path, name, task, options):
    model = create_model(name, task, num_classes=3, **options)
    state = golden.fill({key: value.shape for key, value in weights.to_torch(model).items()})
    save_file(state, tmp_path / "m.safetensors")
    (tmp_path / "m.json").write_text(json.dumps({"model": name, "options": options}))
    loaded = pretrained.load(pretrained.read(tmp_path / "m.safetensors"))
    image = np.random.default_rng(0).standard_normal((1, 64, 96, 3)).astype(np.float32)
    found = pretrained.in_jax(loaded)(image)
    with torch.no_grad():
        expected = pretrained.in_torch(loaded)(torch.from_numpy(image).permute(0, 3, 1, 2))
    expected = expected.movedim(1, -1).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_card_has_the_options_that_differ_from_the_published_model():
    config = configs.segmentation()
    config.model.update({"name": "seaformer_tiny", **OPTIONS})
    assert to_torch._options(config) == OPTIONS
    config = configs.default()
    config.model.update({"name": "swin_tiny", "attention": "sea"})
    assert to_torch._options(config) == {"attention": "sea"}
    config.model.attention = ""
    assert to_torch._options(config) == {}


def test_an_official_classifier_of_swin_is_read(tmp_path, monkeypatch):
    monkeypatch.undo()
    state = {
        name: torch.zeros(array.shape)
        for name, array in weights.to_torch(create_model("swin_tiny", num_classes=5)).items()
    }
    # The names and shapes in microsoft/Swin-Transformer: one norm before the head, and tables that are computed.
    official = {name: value for name, value in state.items() if not name.startswith("norm")}
    official |= {"norm.weight": torch.arange(768.0), "norm.bias": torch.full((768,), 2.0)}
    official |= {
        "layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49),
        "layers.0.blocks.0.attn.relative_position_index": torch.zeros(49, 49, dtype=torch.int64),
    }
    torch.save({"model": official, "epoch": 300}, tmp_path / "swin.pth")
    model = create_model("swin_tiny", num_classes=5, seed=1)
    weights.from_torch(model, files.read_state_dict(tmp_path / "swin.pth"))
    norms = model.backbone.norms
    np.testing.assert_array_equal(norms[3].scale[...], np.arange(768))
    np.testing.assert_array_equal(norms[3].bias[...], np.full(768, 2))
    assert [norm.scale.shape for norm in norms] == [(96,), (192,), (384,), (768,)]
    np.testing.assert_array_equal(norms[0].scale[...], np.ones(96))
    np.testing.assert_array_equal(norms[2].bias[...], np.zeros(384))
