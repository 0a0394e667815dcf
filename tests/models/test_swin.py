"""Swin-Tiny: size, shapes, the authors' block, the PyTorch mirror with every kind of attention, and errors."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from convert import torch_swin, weights
from seaformer_jax import create_model, list_models
from seaformer_jax.errors import UserError
from seaformer_jax.models import attention
from seaformer_jax.models.attention.layers import Setting
from seaformer_jax.models.heads.classifier import Classifier
from seaformer_jax.models.macs import count_macs
from seaformer_jax.models.swin import TransformerBlock
from seaformer_jax.models.swin_config import SwinConfig
from tests import golden
from tests.models.attention import test_kinds

# Millions of parameters and G MACs at 512x512 of the backbone with four norms (computed independently).
COSTS = {
    "window_shift": (27.52, 25.50),
    "acmix_swin": (27.88, 26.45),
    "mixformer": (27.54, 24.65),
    "axial_sum": (36.11, 32.31),
    "sea": (34.24, 24.80),
    "vanilla": (27.50, 143.7),
}
SMALL = SwinConfig(width=16, depths=(1, 2), heads=(1, 2), attention_window=4)


@pytest.mark.parametrize("kind", COSTS)
def test_parameters_and_operations(kind):
    model = nnx.eval_shape(functools.partial(create_model, "swin_tiny", attention=kind))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model.backbone, nnx.Param)))
    millions, giga = COSTS[kind]
    assert parameters / 1e6 == pytest.approx(millions, abs=0.0051)
    assert count_macs(model.backbone, 512, 512).total / 1e9 == pytest.approx(
        giga, abs=0.05 if giga > 100 else 0.0051
    )


def test_feature_maps_and_logits():
    graphdef, state = nnx.split(nnx.eval_shape(functools.partial(create_model, "swin_tiny", num_classes=7)))

    def forward(state, images):
        model = nnx.merge(graphdef, state)
        return model.backbone(images), model(images)

    for height, width in [(224, 224), (65, 90)]:
        images = jax.ShapeDtypeStruct((2, height, width, 3), jnp.float32)
        features, logits = jax.eval_shape(forward, state, images)
        assert [feature.shape for feature in features] == [
            (2, math.ceil(height / stride), math.ceil(width / stride), 24 * stride)
            for stride in (4, 8, 16, 32)
        ]
        assert logits.shape == (2, 7)


@pytest.mark.parametrize("size", test_kinds.SIZES)
@pytest.mark.parametrize(("case", "kind"), [("swin_block", "window_shift"), ("mixformer_block", "mixformer")])
def test_block_equals_the_authors_code(case, kind, size):
    config, state_dict, stored = test_kinds.load(f"{case}_{size}")
    rng = np.random.default_rng(0)
    module = attention.build(kind, config["C"], config["heads"], rng, Setting())
    block = TransformerBlock(config["C"], module, 4, 0.0, rng)
    weights.from_torch(block, state_dict)
    y, grads, dx_norm = test_kinds.run(block, config, train=False)
    np.testing.assert_allclose(y, stored["y"], rtol=0, atol=2e-5)
    test_kinds.check_norms(grads, stored["param_names"], stored["grad_norms"])
    np.testing.assert_allclose(dx_norm, stored["dx_norm"], rtol=1e-3)


@pytest.mark.parametrize("kind", ["window_shift", "sea", "acmix_swin", "axial_deeplab"])
def test_equals_the_mirror(kind):
    size = (45, 66)
    config = dataclasses.replace(
        SMALL, attention=kind, attention_input=size if kind == "axial_deeplab" else (), heads=(2, 2)
    )
    ours, theirs = Classifier(config, 5, np.random.default_rng(0)), torch_swin.Classifier(config, 5)
    state = golden.fill({name: tuple(value.shape) for name, value in theirs.state_dict().items()})
    theirs.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    weights.from_torch(ours, state)
    images = golden.images((2, 3, *size), seed=5)
    with torch.no_grad():
        expected = theirs.eval()(torch.from_numpy(images)).numpy()
    graphdef, tree = nnx.split(ours)
    found = jax.jit(lambda tree, x: nnx.merge(graphdef, tree)(x))(tree, images.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_drop_path_rises_over_all_blocks():
    model = nnx.eval_shape(functools.partial(create_model, "swin_tiny", drop_path_rate=0.11))
    rates = [block.drop_path.rate for stage in model.backbone.stages for block in stage.blocks]
    np.testing.assert_allclose(rates, np.arange(12) / 100)


def test_shifts_alternate():
    model = nnx.eval_shape(functools.partial(create_model, "swin_tiny"))
    assert [block.attention.shift for block in model.backbone.stages[2].blocks] == [False, True] * 3


def test_is_listed_for_its_task_alone():
    assert "swin_tiny" in list_models("classification")
    assert "swin_tiny" not in list_models()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"task": "segmentation"}, "swin_tiny has no head for segmentation"),
        ({"attention": "none"}, "attention is 'none'; expected one of"),
        ({"detail_input": "conv"}, "detail_input is 'conv', but swin_tiny has no such option"),
        ({"depth": 3}, "unknown model option 'depth' for classification. Did you mean 'depths'"),
    ],
)
def test_wrong_requests_are_errors_of_one_line(request_, message):
    with pytest.raises(UserError, match=message) as caught:
        create_model("swin_tiny", **request_)
    assert "\n" not in str(caught.value)
