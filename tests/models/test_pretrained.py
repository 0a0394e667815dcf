"""Weights that ship with the package: written, read back, and refused by other models."""

import jax.numpy as jnp
import numpy as np
import pytest

from seaformer_jax import create_model, list_weights
from seaformer_jax.errors import UserError
from seaformer_jax.models import pretrained
from seaformer_jax.models.variables import split_model

CARD = {"model": "mini", "task": "classification", "class_names": ["a", "b", "c"], "config": {}}


@pytest.fixture
def saved(mini, tmp_path, monkeypatch):
    """A model whose arrays were written as the weights "letters" into a folder of the test's own."""
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    model = create_model(mini, num_classes=3, seed=5)
    model.backbone.stem.bn.var[...] = jnp.full(8, 3e-6)  # Float16 would keep two digits of it.
    pretrained.save(*split_model(model), CARD, "letters", tmp_path)
    return model


def test_weights_come_back_rounded_to_float16(mini, saved):
    loaded = create_model(mini, weights="letters")
    assert loaded.head.kernel.dtype == jnp.float32
    rounded = np.asarray(saved.head.kernel[...]).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(loaded.head.kernel[...], rounded)
    np.testing.assert_array_equal(loaded.backbone.stem.bn.var[...], saved.backbone.stem.bn.var[...])
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 64, 64, 3)), jnp.float32)
    np.testing.assert_allclose(loaded(x), saved(x), rtol=0, atol=2e-3)


def test_the_card_is_read_back(saved):
    assert pretrained.list_weights() == ["letters"]
    assert pretrained.read_card("letters")["class_names"] == ("a", "b", "c")


def test_weights_of_another_model_are_refused(mini, saved):
    with pytest.raises(
        UserError, match=r"'letters' do not fit the model: 2 arrays differ, e.g. params/head/bias"
    ):
        create_model(mini, num_classes=4, weights="letters")
    with pytest.raises(UserError, match="'letters' do not fit the model"):
        create_model("seaformer_tiny", weights="letters")


def test_unknown_weights_are_an_error_that_lists_the_known_ones(mini, saved):
    with pytest.raises(UserError, match=r"unknown weights 'leters'; known: letters\. Did you mean 'letters'"):
        create_model(mini, weights="leters")


@pytest.mark.parametrize("name", list_weights())
def test_shipped_weights_fit_the_model_on_their_card_and_are_small(name):
    card = pretrained.read_card(name)
    model = create_model(card["model"], card["task"], weights=name)
    assert all(jnp.isfinite(array).all() for array in split_model(model)[0]["head"]["classify"].values())
    assert (pretrained.FOLDER / f"{name}.safetensors").stat().st_size < 4e6
    assert {"data", "licence", "score", "recipe"} <= card.keys()
    assert (pretrained.FOLDER / f"{name}.md").exists()
