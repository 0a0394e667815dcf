"""Bands of rows: the same values and gradients as whole images, and as many as fill the lanes of a TPU."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from seaformer_jax.models import bands, convolution
from seaformer_jax.models.seaformer import SeaFormer
from seaformer_jax.models.variables import split_model
from tests import toys
from tests.models.arrays import normal


@pytest.mark.parametrize(("k", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
@pytest.mark.parametrize("groups", [1, 6])
@pytest.mark.parametrize("count", [2, 4])
def test_a_banded_convolution_equals_that_of_the_image(k, stride, groups, count):
    x, kernel = normal(1, 2, 16, 7, 6), normal(2, k, k, 6 // groups, 6)
    weight = normal(3, 2, 16 // stride, -(-7 // stride), 6)

    def banded(x, kernel):
        y = convolution.convolution(bands.split(x, count), kernel, stride, groups, count)
        return bands.join(y, count)

    def whole(x, kernel):
        return convolution.convolution(x, kernel, stride, groups)

    (y, gradients), (expected, expected_gradients) = (
        (form(x, kernel), jax.grad(lambda *a, form=form: (form(*a) * weight).sum(), (0, 1))(x, kernel))
        for form in (banded, whole)
    )
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5)
    for found, wanted in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("train", [False, True])
def test_banded_stages_equal_those_of_images(monkeypatch, train):
    images = jnp.asarray(normal(1, 2, 64, 96, 3))
    model = SeaFormer(dataclasses.replace(toys.MINI, bn_groups=2), np.random.default_rng(0))
    graphdef, (params, stats) = nnx.graphdef(model), split_model(model)

    @jax.jit
    def run(params, stats):
        def loss(params):
            model = nnx.merge(graphdef, params, stats)
            feature = model(images, train=train)[1]
            # The statistics of later stages are noise: there an image has two pixels.
            banded = nnx.List([model.stem, *model.stages[:2]])
            return jnp.square(feature).mean(), nnx.to_pure_dict(nnx.state(banded, nnx.BatchStat))

        return jax.value_and_grad(loss, has_aux=True)(params)

    expected = run(params, stats)
    monkeypatch.setattr(bands, "count", lambda images: 4)
    run.clear_cache()
    for found, wanted in zip(jax.tree.leaves(run(params, stats)), jax.tree.leaves(expected), strict=True):
        scale = max(1.0, float(jnp.abs(wanted).max()))
        np.testing.assert_allclose(found / scale, wanted / scale, rtol=0, atol=1e-4)


def mesh_of(platform: str, chips: int) -> contextlib.AbstractContextManager:
    device = AbstractDevice(f"a {platform}", 1, platform)
    mesh = AbstractMesh((chips,), ("data",), axis_types=(AxisType.Auto,), abstract_device=device)
    return jax.sharding.use_abstract_mesh(mesh)


@pytest.mark.parametrize(
    ("platform", "chips", "shape", "count"),
    [
        ("tpu", 4, (1024, 224, 224, 3), 1),  # 256 images a chip fill the lanes.
        ("tpu", 4, (256, 224, 224, 3), 2),
        ("tpu", 4, (32, 512, 512, 3), 16),
        ("tpu", 4, (128, 512, 512, 3), 4),
        ("tpu", 4, (4, 1024, 2048, 3), 64),  # More would have too few rows.
        ("tpu", 4, (32, 500, 512, 3), 1),  # No 8 divides the rows.
        ("gpu", 4, (32, 512, 512, 3), 1),
        ("cpu", 4, (32, 512, 512, 3), 1),
    ],
)
def test_the_bands_fill_the_lanes_of_a_tpu(platform, chips, shape, count):
    with mesh_of(platform, chips):
        assert bands.count(jax.ShapeDtypeStruct(shape, jnp.float32)) == count


@pytest.mark.parametrize(("images", "fixed"), [(4, True), (3, True), (2, False)])
def test_the_layout_is_fixed_if_bands_fill_more_than_half_of_the_lanes(images, fixed):
    x = jax.ShapeDtypeStruct(
        (4 * images * 32, 2, 8, 3), jnp.float32
    )  # On four chips, 32 bands of each image.
    with mesh_of("tpu", 4):
        program = jax.make_jaxpr(lambda x: bands.with_neighbours(x, 32, 1, 1))(x)
    assert ("layout_constraint" in str(program)) == fixed


def test_without_a_mesh_there_are_no_bands():
    assert bands.count(jnp.zeros((1, 512, 512, 3))) == 1
