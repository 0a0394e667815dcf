"""SeaFormer with another attention: equal to the PyTorch mirror, weights there and back, start, sizes and errors."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from convert import torch_segmentation, weights
from convert.graph import rewrites
from convert.torch_attention.kinds import chosen
from experiments.campaign import recipe
from seaformer_jax import create_model
from seaformer_jax.errors import UserError
from seaformer_jax.models import attention
from seaformer_jax.models.attention.sea import SeaAttention
from seaformer_jax.models.variants import InvertedResidualSpec
from tests import golden, toys

SIZE = (130, 160)  # Maps of 9x10 and 5x5.
# Kind -> options that it needs, or that have an effect with it.
OPTIONS = {
    "sea_plus": {"adaptive_source": "q"},
    "vanilla": {"attention_widths": (40, 16)},
    "window": {"attention_widths": (16, 24), "attention_window": 4},
    "window_shift": {"attention_window": 4},
    "axial_deeplab": {"attention_input": SIZE},
}
KINDS = [kind for kind in (*attention.KINDS, "enhancement", "none") if kind != "sea"]


@pytest.fixture(autouse=True)
def model_with_even_widths():
    """Makes a small model known whose widths all kinds can take."""
    stages = (*toys.MINI.stages[:2], *((InvertedResidualSpec(3, 2, width, 2),) for width in (32, 48)))
    recipe.make_known({"even": dataclasses.replace(toys.MINI, stages=stages)})


def create(kind: str) -> nnx.Module:
    options = OPTIONS.get(kind, {})
    return create_model("even", "segmentation", num_classes=5, drop_path_rate=0.0, attention=kind, **options)


def mirror(kind: str) -> torch.nn.Module:
    return torch_segmentation.create_model("even", 5, 0.0, attention=chosen(kind), **OPTIONS.get(kind, {}))


@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_mirror_and_its_inference_form(kind):
    theirs, ours = mirror(kind), create(kind)
    state = golden.fill({name: tuple(value.shape) for name, value in theirs.state_dict().items()})
    theirs.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    weights.from_torch(ours, state)  # Strict, so the names and shapes are those of the mirror.
    images = golden.images((1, 3, *SIZE), seed=5)
    with torch.no_grad():
        expected = theirs.eval()(torch.from_numpy(images)).numpy()
        deployed = rewrites.deploy(theirs, SIZE)(torch.from_numpy(images)).numpy()
    graphdef, tree = nnx.split(ours)
    found = jax.jit(lambda tree, x: nnx.merge(graphdef, tree)(x))(tree, images.transpose(0, 2, 3, 1))
    tolerance = 1e-5 * np.abs(expected).max() + 1e-5
    np.testing.assert_allclose(np.asarray(found).transpose(0, 3, 1, 2), expected, rtol=0, atol=tolerance)
    np.testing.assert_allclose(deployed, expected, rtol=0, atol=tolerance)
    for name, value in weights.to_torch(ours).items():
        np.testing.assert_array_equal(value, state[name], err_msg=name)


def attention_output(model: nnx.Module) -> jax.Array:
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, *SIZE, 3)), jnp.float32)
    return jax.jit(functools.partial(type(model.backbone).last_attention, model.backbone))(x)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("sea_plus", "enhancement", "none")])
def test_every_other_kind_starts_at_zero(kind):
    assert not np.asarray(attention_output(create(kind))).any()


def test_enhancement_is_what_sea_gates():
    """A fresh SEA attention gates its detail with 0.5 everywhere."""
    sea, alone = (
        SeaAttention(12, 4, 2, 2, 1, np.random.default_rng(1), axial=axial) for axial in (True, False)
    )
    weights.load_matching(alone, weights.to_torch(sea))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5, 6, 12)), jnp.float32)
    np.testing.assert_allclose(2 * sea(x, train=False), alone(x, train=False), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["window_shift", "axial_deeplab", "acmix_swin", "mixformer"])
def test_bfloat16_has_a_softmax_in_float32(kind):
    module = attention.create(kind, 32, 2, size=(9, 8))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 9, 8, 32)), jnp.float32)
    graphdef, state = nnx.split(module)
    run = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x, train=False))
    exact, rough = run(state, x), run(state, x.astype(jnp.bfloat16))
    assert rough.dtype == jnp.bfloat16
    np.testing.assert_allclose(rough.astype(jnp.float32), exact, rtol=0, atol=0.03 * np.abs(exact).max())
    traced = str(
        jax.make_jaxpr(lambda state, x: nnx.merge(graphdef, state)(x))(state, x.astype(jnp.bfloat16))
    )
    assert not [line for line in traced.splitlines() if " exp " in line and "f32[" not in line.split("=")[0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "windows"}, "attention is 'windows'.*Did you mean 'window'"),
        ({"attention": "axial_deeplab"}, "attention_input is ().*tables of axial_deeplab"),
        (
            {"attention": "window", "detail_input": "none"},
            "detail_input is 'none', but attention is 'window'",
        ),
        (
            {"attention": "mixformer", "attention_widths": (8, 8)},
            "attention_widths .* attention is 'mixformer'",
        ),
        ({"attention": "vanilla", "attention_widths": (8,)}, "attention_widths is .*expected 2 widths"),
        ({"attention": "vanilla", "attention_widths": (9, 8)}, "2 heads for 9 channels"),
        ({"attention": "enhancement", "detail_input": "none"}, "which has nothing else"),
        ({"attention_window": 8}, "attention_window is 8, but attention is 'sea'"),
    ],
)
def test_wrong_options_are_errors_of_one_line(options, message):
    with pytest.raises(UserError, match=message) as caught:
        create_model("even", "segmentation", num_classes=5, **options)
    assert "\n" not in str(caught.value)


def test_a_size_that_the_tables_cannot_take_is_an_error_of_one_line():
    with pytest.raises(UserError, match="got a map of 4x4; expected 9x10"):
        jax.eval_shape(create("axial_deeplab"), jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32))
    with pytest.raises(UserError, match="got a map of 2x2; expected at least 4x4"):
        jax.eval_shape(create("acmix_conv"), jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32))
    with pytest.raises(UserError, match="give the size"):
        attention.create("axial_deeplab", 64, 2)
    with pytest.raises(UserError, match="attention is 'axial'; expected one of"):
        attention.create("axial", 64, 2)


def test_without_attention_there_is_no_heat_map():
    with pytest.raises(UserError, match="no attention to show"):
        attention_output(create("none"))
