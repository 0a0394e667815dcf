"""Adaptive squeezing and expanding against loops, against the ICLR model and against the PyTorch mirror."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from convert import torch_model, torch_segmentation, weights
from seaformer_jax import create_model
from seaformer_jax.errors import UserError
from seaformer_jax.models.attention.adaptive_squeeze import AdaptiveExpand, AdaptiveSqueeze
from seaformer_jax.models.attention.sea import SeaAttention
from seaformer_jax.models.batch_norm import BatchNorm
from seaformer_jax.models.macs import Macs, count_macs
from seaformer_jax.models.registry import model_config
from tests import golden

INPUTS, HEADS, KEY, WIDTH = 5, 3, 4, 10
OPTIONS = (
    {"adaptive": "both"},
    {"adaptive": "squeeze"},
    {"adaptive": "expand"},
    {"adaptive": "both", "adaptive_source": "q"},
    {"adaptive": "both", "adaptive_shared": True},
    {"adaptive": "both", "adaptive_expansion": "sigmoid"},
    {"adaptive": "squeeze", "adaptive_source": "q", "adaptive_shared": True},
    {"adaptive": "both", "detail_input": "none"},
)
LABELS = ["-".join(map(str, options.values())) for options in OPTIONS]


def normal(*shape: int, seed: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def by_group(weights: np.ndarray, channel: int, channels: int) -> np.ndarray:
    """Returns the weight [...] of one of `channels` channels, from the weights [..., G] of all groups."""
    return weights[..., channel * weights.shape[-1] // channels]


# The two steps against loops over positions and channels, in float64.


@pytest.mark.parametrize("groups", [1, HEADS])
@pytest.mark.parametrize("size", [(4, 6), (1, 5), (3, 1)])
def test_squeeze_equals_loops(groups, size):
    squeeze = AdaptiveSqueeze(INPUTS, groups)
    squeeze.map.kernel[...] = jnp.asarray(normal(INPUTS, groups, seed=1))
    source, narrow, wide = normal(2, *size, INPUTS), normal(2, *size, 6), normal(2, *size, 12, seed=3)
    kernel = np.asarray(squeeze.map.kernel[...], np.float64)
    exponentials = np.exp(source.astype(np.float64) @ kernel / INPUTS**0.5)
    rows, columns = squeeze(jnp.asarray(source), jnp.asarray(narrow), jnp.asarray(wide))
    for found_rows, found_columns, t in zip(rows, columns, (narrow, wide), strict=True):
        expected_rows = np.zeros((2, size[0], t.shape[3]))
        expected_columns = np.zeros((2, size[1], t.shape[3]))
        for image, i, j, c in np.ndindex(t.shape):
            weight = by_group(exponentials[image], c, t.shape[3])  # [H, W]
            expected_rows[image, i, c] += weight[i, j] / weight[i].sum() * t[image, i, j, c]
            expected_columns[image, j, c] += weight[i, j] / weight[:, j].sum() * t[image, i, j, c]
        np.testing.assert_allclose(found_rows, expected_rows, rtol=0, atol=1e-5)
        np.testing.assert_allclose(found_columns, expected_columns, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("groups", [1, HEADS])
def test_expand_equals_loops(groups, sigmoid):
    expand = AdaptiveExpand(INPUTS, groups, sigmoid=sigmoid)
    expand.map.kernel[...] = jnp.asarray(normal(INPUTS, groups, seed=1))
    source, row, column = normal(2, 4, 7, INPUTS), normal(2, 4, 6, seed=2), normal(2, 7, 6, seed=3)
    a = source.astype(np.float64) @ np.asarray(expand.map.kernel[...], np.float64) / INPUTS**0.5
    gain = 2 / (1 + np.exp(-a)) if sigmoid else 1 + a
    expected = np.zeros((2, 4, 7, 6))
    for image, i, j, c in np.ndindex(expected.shape):
        b = by_group(gain[image], c, 6)[i, j]
        expected[image, i, j, c] = b * row[image, i, c] + b * column[image, j, c]
    found = expand(*map(jnp.asarray, (source, row, column)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_scores_of_any_size_are_no_overflow_and_the_dtype_is_kept():
    squeeze = AdaptiveSqueeze(INPUTS, HEADS)
    squeeze.map.kernel[...] = jnp.full((INPUTS, HEADS), 1e4)
    source = jnp.asarray(normal(2, 4, 6, INPUTS), jnp.bfloat16)
    (rows,), (columns,) = squeeze(source, source[..., :3])
    assert rows.dtype == columns.dtype == jnp.bfloat16
    assert jnp.isfinite(rows).all() and jnp.isfinite(columns).all()


# With maps that start at 0, the block is that of the ICLR model.


def attention(**options) -> SeaAttention:
    """An attention block whose BatchNorms have random scales, biases and statistics."""
    rng = np.random.default_rng(0)
    model = SeaAttention(WIDTH, KEY, HEADS, value_ratio=2, bn_groups=1, rng=rng, **options)
    rng = np.random.default_rng(1)
    for _, bn in nnx.iter_graph(model):
        if isinstance(bn, BatchNorm):
            for variable in (bn.scale, bn.bias, bn.mean):
                variable[...] = jnp.asarray(rng.standard_normal(variable.shape), jnp.float32)
            bn.var[...] = jnp.asarray(rng.uniform(0.5, 2, bn.var.shape), jnp.float32)
    return model


@pytest.mark.parametrize("options", OPTIONS, ids=LABELS)
def test_fresh_maps_leave_the_iclr_attention(options):
    x = jnp.asarray(normal(2, 5, 7, WIDTH))
    published = attention(detail_input=options.get("detail_input", "qkv"))(x, train=False)
    model = attention(**options)
    assert published.std() > 0.05
    np.testing.assert_allclose(model(x, train=False), published, rtol=0, atol=1e-5)
    for part in (model.squeeze, model.expand):
        if part is not None:
            before, part.map.kernel[...] = part.map.kernel[...], jnp.asarray(normal(*part.map.kernel.shape))
            assert jnp.abs(model(x, train=False) - published).max() > 1e-3
            part.map.kernel[...] = before


def test_other_weights_of_a_seed_are_those_of_the_iclr_model(mini):
    published = weights.to_torch(create_model(mini, seed=3))
    found = weights.to_torch(create_model(mini, seed=3, adaptive="both"))
    added = found.keys() - published.keys()
    assert len(added) == 6  # Two maps in each of three layers.
    assert all(weights.is_adaptive(name) and not found[name].any() for name in added)
    for name, value in published.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


# Against the PyTorch mirror, with random weights in the adaptive maps.


def filled(model: torch.nn.Module) -> dict[str, np.ndarray]:
    arrays = golden.fill({entry: tuple(value.shape) for entry, value in model.state_dict().items()})
    model.load_state_dict({entry: torch.from_numpy(array) for entry, array in arrays.items()})
    return arrays


def logits(model: nnx.Module, images: np.ndarray) -> np.ndarray:
    graphdef, state = nnx.split(model)
    options = {"xla_backend_optimization_level": 0}  # Compiling takes most of this file's time.
    forward = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x), compiler_options=options)
    return np.asarray(forward(state, images.transpose(0, 2, 3, 1)))


@pytest.mark.parametrize("options", OPTIONS, ids=LABELS)
def test_logits_equal_pytorch(options, mini):
    reference = torch_model.create_model(mini, 11, **options).eval()
    state_dict, images = filled(reference), golden.images((2, 3, 75, 98), seed=5)
    with torch.inference_mode():
        expected = reference(torch.from_numpy(images)).numpy()
    model = create_model(mini, num_classes=11, **options)
    weights.from_torch(model, state_dict)
    np.testing.assert_allclose(logits(model, images), expected, rtol=0, atol=1e-5)


def test_segmentation_logits_equal_pytorch(mini):
    reference = torch_segmentation.create_model(mini, 5, adaptive="both").eval()
    state_dict, images = filled(reference), golden.images((2, 3, 75, 98), seed=5)
    with torch.inference_mode():
        expected = reference(torch.from_numpy(images)).numpy()
    model = create_model(mini, "segmentation", num_classes=5, adaptive="both")
    weights.from_torch(model, state_dict)
    np.testing.assert_allclose(logits(model, images).transpose(0, 3, 1, 2), expected, rtol=0, atol=1e-5)


# Options.


def test_empty_option_leaves_the_model_its_own():
    for option, own in (("", "both"), ("none", "none"), ("expand", "expand")):
        assert model_config("seaformer_plus_tiny", adaptive=option).adaptive == own
    assert model_config("seaformer_tiny", adaptive="").adaptive == "none"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adaptive": "sqeeze"}, r"adaptive is 'sqeeze'; expected one of none, .*Did you mean 'squeeze'\?$"),
        ({"adaptive_source": "k"}, r"adaptive_source is 'k'; expected one of x, q\."),
        (
            {"adaptive": "none", "adaptive_shared": True},
            r"adaptive_shared is True, but adaptive is 'none'; expected both or squeeze or expand, as in",
        ),
        (
            {"adaptive": "squeeze", "adaptive_expansion": "sigmoid"},
            r"adaptive_expansion is 'sigmoid', but adaptive is 'squeeze'; expected both or expand",
        ),
    ],
)
def test_options_without_effect_are_errors(options, message):
    with pytest.raises(UserError, match=message):
        create_model("seaformer_plus_tiny", **options)


# Parameters and operations beyond those of the ICLR model.

# (Parameters, multiply-accumulates of one image) of the classifier with 1000 classes at 224 pixels and of the
# segmentation model with 150 classes at 512 pixels.
COSTS = {
    "tiny": [(1_785_704, 93_585_984), (1_671_926, 563_798_016)],
    "small": [(4_118_328, 178_096_832), (4_002_790, 1_034_008_576)],
    "base": [(8_771_336, 316_473_088), (8_634_326, 1_763_942_400)],
    "large": [(14_083_368, 1_165_169_728), (13_988_374, 6_360_514_560)],
}
# Each attention stage: width, heads, key channels per head, layers, and the side of its map at 224 and at 512 pixels.
STAGES = {
    "tiny": [(128, 4, 16, 2, (7, 16)), (160, 4, 24, 2, (4, 8))],
    "small": [(160, 6, 16, 3, (7, 16)), (192, 6, 24, 3, (4, 8))],
    "base": [(192, 8, 16, 4, (7, 16)), (256, 8, 24, 4, (4, 8))],
    "large": [(192, 8, 16, 3, (14, 32)), (256, 8, 20, 3, (7, 16)), (320, 8, 24, 3, (4, 8))],
}
TASKS = (("classification", 1000, 224), ("segmentation", 150, 512))


def parameters(model: nnx.Module) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


@pytest.mark.parametrize("task", (0, 1))
@pytest.mark.parametrize(
    "size",
    [
        "tiny",
        pytest.param("small", marks=pytest.mark.slow),
        pytest.param("base", marks=pytest.mark.slow),
        pytest.param("large", marks=pytest.mark.slow),
    ],
)
def test_costs_beyond_the_iclr_model(size, task):
    name, classes, side = TASKS[task]
    models = [create_model(f"seaformer_{kind}{size}", name, classes) for kind in ("", "plus_")]
    maps = sum(layers * 2 * width * heads for width, heads, _, layers, _ in STAGES[size])
    published, found = (count_macs(model, side, side) for model in models)
    conv, products = 0, 0
    for width, heads, key, layers, sides in STAGES[size]:
        positions = layers * sides[task] ** 2
        conv += positions * 2 * width * heads
        # Along each axis, queries, keys and values (twice as wide) are squeezed and the output is expanded.
        products += positions * 2 * (4 * heads * key + 2 * heads * key)
    assert parameters(models[1]) == parameters(models[0]) + maps
    assert found == Macs(published.conv + conv, published.matmul + products, published.linear)
    assert (parameters(models[1]), found.total) == COSTS[size][task]
