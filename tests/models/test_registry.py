"""The registry: names, options, shapes and sizes of the models, and the errors of wrong requests."""

import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import seaformer_jax
from seaformer_jax.errors import UserError
from seaformer_jax.models.attention.sea import SeaAttention
from seaformer_jax.models.batch_norm import BatchNorm
from seaformer_jax.models.registry import create_model, list_models, model_config
from seaformer_jax.models.seaformer import FFN, SeaFormerLayer
from tests.paths import REPOSITORY

# Channels at 1/4, 1/8, 1/16, 1/32 and 1/64 (Table "architecture variants"), and parameters of the official models.
CHANNELS = {
    "seaformer_tiny": (16, 32, 64, 128, 160),
    "seaformer_small": (24, 48, 96, 160, 192),
    "seaformer_base": (32, 64, 128, 192, 256),
    "seaformer_large": (64, 128, 192, 256, 320),
}
PARAMETERS = {
    "seaformer_tiny": 1_781_096,
    "seaformer_small": 4_105_656,
    "seaformer_base": 8_742_664,
    "seaformer_large": 14_046_504,
}


def parameters(model: nnx.Module) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))]


# Shapes, sizes and initial values.


def test_list_is_sorted_and_has_the_published_sizes():
    assert list_models() == sorted(list_models())
    assert set(CHANNELS) <= set(list_models())


BETWEEN = ("seaformer_small", "seaformer_base")  # Between the sizes that `make test` builds.
SIZES = [pytest.param(name, marks=pytest.mark.slow if name in BETWEEN else ()) for name in CHANNELS]


@pytest.mark.parametrize("name", SIZES)
def test_parameters_and_feature_maps(name):
    model = create_model(name)
    assert sum(parameter.size for parameter in parameters(model)) == PARAMETERS[name]

    graphdef, state = nnx.split(model)
    for height, width in [(64, 128), (65, 90), (33, 1)]:

        def forward(state, images):
            model = nnx.merge(graphdef, state)
            return model.backbone(images), model(images)

        features, logits = jax.eval_shape(forward, state, jnp.zeros((2, height, width, 3)))
        expected = [
            (2, math.ceil(height / stride), math.ceil(width / stride), channels)
            for stride, channels in zip((4, 8, 16, 32, 64), CHANNELS[name], strict=True)
        ]
        assert [feature.shape for feature in features] == expected
        assert logits.shape == (2, 1000)


def test_number_of_classes():
    assert create_model("seaformer_tiny", num_classes=7).head.kernel.shape == (160, 7)


def test_same_seed_same_parameters_and_another_seed_others():
    first, again, other = (parameters(create_model("seaformer_tiny", seed=seed)) for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    drawn = [
        (a, b) for a, b in zip(first, other, strict=True) if a.std() > 0
    ]  # Without BatchNorm's 0s and 1s.
    assert len(drawn) > 50
    assert not any(np.array_equal(a, b) for a, b in drawn)


def test_no_two_layers_start_alike():
    drawn = [
        value.ravel()[:5].tobytes() for value in parameters(create_model("seaformer_tiny")) if value.std()
    ]
    assert len(set(drawn)) == len(drawn)


# Options.


def test_drop_path_rate_rises_within_each_stage():
    model = create_model("seaformer_large", drop_path_rate=0.2)
    rates = [[layer.drop_path.rate for layer in stage.sea] for stage in model.backbone.stages]
    assert rates == [[], [], *[[0, pytest.approx(0.1), pytest.approx(0.2)]] * 3]


def test_batchnorm_groups_reach_every_layer():
    norms = [
        node
        for _, node in nnx.iter_graph(create_model("seaformer_tiny", bn_groups=4))
        if isinstance(node, BatchNorm)
    ]
    assert len(norms) > 50
    assert {norm.groups for norm in norms} == {4}


def test_options_leave_the_preset_alone():
    assert model_config("seaformer_tiny", dtype="bfloat16").dtype == "bfloat16"
    assert model_config("seaformer_tiny").dtype == "float32"


@pytest.mark.parametrize("dropping", [True, False])
def test_layer_drops_both_branches(dropping):
    rng = np.random.default_rng(0)
    attention = SeaAttention(4, key_dim=2, heads=2, value_ratio=2, bn_groups=1, rng=rng)
    layer = SeaFormerLayer(attention, FFN(4, 8, 1, rng), drop_path_rate=1 - 1e-6)
    x = jnp.asarray(rng.standard_normal((3, 5, 5, 4)), jnp.float32)
    y = layer(x, train=False, rngs=nnx.Rngs(dropout=0) if dropping else None)
    assert (y == x).all() == dropping
    expected = x + attention(x, train=False)
    expected += layer.ffn(expected, train=False)
    np.testing.assert_allclose(y, x if dropping else expected, rtol=0, atol=1e-6)


# Wrong requests.


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (
            {"name": "seaformer_tinny"},
            r"unknown model 'seaformer_tinny'; known: seaformer_base, .*Did you mean 'seaformer_tiny'\?",
        ),
        ({"name": "resnet"}, r"unknown model 'resnet'; known: seaformer_base, .*seaformer_tiny\.$"),
        (
            {"name": "seaformer_tiny", "task": "clasification"},
            r"unknown task 'clasification'; known: classification, segmentation.*Did you mean 'classification'\?",
        ),
        (
            {"name": "seaformer_tiny", "drop_path": 0.1},
            r"unknown model option 'drop_path' for classification\. Did you mean 'drop_path_rate'\?",
        ),
        (
            {"name": "seaformer_tiny", "task": "segmentation", "zzz": 1},
            r"unknown model option 'zzz' for segmentation\. Known: stem, .*, fusion_widths, fusion[,.]",
        ),
        (
            {"name": "seaformer_tiny", "fusion": "add"},
            r"unknown model option 'fusion' for classification\. Known: stem, (?!.*fusion).*, position_embedding, ",
        ),
        (
            {"name": "seaformer_tiny", "task": "segmentation", "fusion": "ad"},
            r"model option fusion is 'ad'; expected one of sigmoid_multiply, .*\. Did you mean 'add'\?$",
        ),
        (
            {"name": "seaformer_tiny", "detail_input": "kqv"},
            r"detail_input is 'kqv'; expected one of qkv, conv, upconv, none\. Did you mean 'qkv'\?$",
        ),
        (
            {"name": "seaformer_large", "task": "segmentation", "fusion_widths": (64, 96)},
            r"fusion_widths is \(64, 96\); expected 3 widths, one for each stage with attention$",
        ),
    ],
)
def test_unknown_names_are_errors_with_suggestions(request_, message):
    with pytest.raises(UserError, match=message):
        create_model(**request_)


# The package.


def test_package_offers_the_registry():
    assert seaformer_jax.create_model is create_model
    assert seaformer_jax.list_models is list_models
    with pytest.raises(AttributeError, match="'seaformer_jax' has no attribute 'create_modle'"):
        _ = seaformer_jax.create_modle


def test_importing_the_package_does_not_import_jax():
    code = "import seaformer_jax, sys; sys.exit(bool({'jax', 'flax', 'torch'} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY, timeout=120)
