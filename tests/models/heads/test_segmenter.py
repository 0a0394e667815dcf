"""Segmentation models: shapes, parameters, operations, initial values, dropout and the source of the heat maps."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from convert import torch_segmentation, weights
from seaformer_jax import create_model
from seaformer_jax.models.batch_norm import BatchNorm
from seaformer_jax.models.heads.segmenter import LightHead
from seaformer_jax.models.macs import count_macs
from tests import golden

# The official models with 150 classes: parameters, and fvcore's count of operations for one image of 512 x 512.
OFFICIAL = {
    "seaformer_tiny": (1_667_318, 597_159_936),
    "seaformer_small": (3_990_118, 1_074_840_576),
    "seaformer_base": (8_605_654, 1_811_476_480),
    "seaformer_large": (13_951_510, 6_481_616_896),
}
WIDTHS = {
    "seaformer_tiny": (64, 96),
    "seaformer_small": (96, 128),
    "seaformer_base": (128, 160),
    "seaformer_large": (128, 160, 192),
}


# `make test` has the smallest, and the largest, which is the only one with three fusion blocks.
SIZES = [
    pytest.param(name, marks=() if name.endswith(("tiny", "large")) else pytest.mark.slow)
    for name in OFFICIAL
]


@pytest.mark.parametrize("name", SIZES)
def test_parameters_and_operations_are_the_official_ones(name, monkeypatch):
    model = create_model(name, "segmentation", num_classes=150)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    normalised, call = [], BatchNorm.__call__

    def counting(self, x, train):
        normalised.append(x.size)
        return call(self, x, train)

    monkeypatch.setattr(BatchNorm, "__call__", counting)
    macs = count_macs(model, 512, 512)
    # fvcore also counts 2 for every value of BatchNorm and 4 for every value of a bilinear upsampling.
    upsampled = 64 * 64 * sum(WIDTHS[name])
    assert (parameters, macs.total + 2 * sum(normalised) + 4 * upsampled) == OFFICIAL[name]
    assert macs.linear == 0


@pytest.mark.parametrize("name", SIZES)
def test_logits_are_at_an_eighth_and_the_maps_of_all_stages_at_hand(name):
    graphdef, state = nnx.split(create_model(name, "segmentation", num_classes=7, dtype="bfloat16"))
    for height, width in [(64, 128), (65, 90), (33, 1)]:

        def forward(state, images):
            model = nnx.merge(graphdef, state)
            return model.backbone(images), model(images)

        features, logits = jax.eval_shape(forward, state, jnp.zeros((2, height, width, 3)))
        assert logits.shape == (2, math.ceil(height / 8), math.ceil(width / 8), 7)
        assert logits.dtype == jnp.float32
        assert [f.shape[1] for f in features] == [math.ceil(height / s) for s in (4, 8, 16, 32, 64)]
        assert {f.dtype for f in features} == {jnp.dtype(jnp.bfloat16)}


def test_backbone_starts_as_that_of_a_classifier_of_the_same_seed():
    first = nnx.state(create_model("seaformer_tiny", seed=3).backbone)
    second = nnx.state(create_model("seaformer_tiny", "segmentation", seed=3).backbone)
    assert jax.tree.all(jax.tree.map(np.array_equal, first, second))


def test_head_starts_as_mmseg_does():
    head = create_model("seaformer_tiny", "segmentation", num_classes=150).head
    assert head.classify.kernel[...].std() == pytest.approx(0.01, rel=0.05)
    assert not head.classify.bias[...].any()
    for conv in (head.fuse[1].local.conv, head.fuse[1].context.conv):
        assert conv.kernel[...].std() == pytest.approx((2 / 96) ** 0.5, rel=0.05)  # Fan-out: 96 channels.
    assert head.linear_fuse.conv.kernel[...].std() == pytest.approx((2 / 96) ** 0.5, rel=0.3)


def test_widths_are_an_option_and_none_leaves_the_own():
    own = create_model("seaformer_tiny", "segmentation", num_classes=7, fusion_widths=()).head
    assert own.classify.kernel.shape == (96, 7)
    head = create_model("seaformer_tiny", "segmentation", fusion_widths=(40, 24)).head
    assert [fuse.local.conv.kernel.shape for fuse in head.fuse] == [(32, 40), (40, 24)]
    assert [fuse.context.conv.kernel.shape for fuse in head.fuse] == [(128, 40), (160, 24)]


# Dropout.


def test_dropout_takes_whole_channels_and_keeps_the_mean(mini):
    head = create_model(mini, "segmentation", num_classes=16).head
    head.classify.kernel[...] = jnp.eye(16)  # The logits are then the output of dropout.
    rng = np.random.default_rng(0)
    shapes = [(400, 12, 12, 8), (400, 6, 6, 16), (400, 3, 3, 24), (400, 2, 2, 20)]
    features = tuple(jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes)

    def logits(head: LightHead, rngs: nnx.Rngs | None) -> np.ndarray:
        return np.asarray(head.logits(head.fused(features, False), False, rngs))

    whole, dropped = logits(head, None), logits(head, nnx.Rngs(dropout=0))
    present = whole.any((1, 2))  # Without dropout, ReLU already sets a few channels of a few images to 0.
    kept = dropped.any((1, 2))
    np.testing.assert_allclose(dropped, whole / 0.9 * kept[:, None, None], rtol=1e-5, atol=1e-6)
    assert kept[present].mean() == pytest.approx(0.9, abs=0.02)  # 5 standard errors.
    assert not np.array_equal(dropped, logits(head, nnx.Rngs(dropout=1)))


# The source of the heat maps.


def test_last_attention_equals_pytorch(mini):
    reference = torch_segmentation.create_model(mini, 5).eval()
    arrays = golden.fill({name: tuple(value.shape) for name, value in reference.state_dict().items()})
    reference.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    attention, found = reference.backbone.trans2.transformer_blocks[-1].attn, []
    attention.register_forward_hook(lambda module, inputs, output: found.append(output.numpy()))
    images = golden.images((2, 3, 60, 97), seed=2)
    with torch.inference_mode():
        reference(torch.from_numpy(images))

    model = create_model(mini, "segmentation", num_classes=5)
    weights.from_torch(model, arrays)
    last = nnx.jit(lambda backbone, x: backbone.last_attention(x))
    ours = last(model.backbone, jnp.asarray(images.transpose(0, 2, 3, 1)))
    assert ours.shape == (2, 2, 4, 20)
    np.testing.assert_allclose(ours.transpose(0, 3, 1, 2), found[0], rtol=0, atol=1e-5)
