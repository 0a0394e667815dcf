"""The up-sampling module, and models with such a module."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from seaformer_jax import create_model
from seaformer_jax.errors import UserError
from seaformer_jax.models.macs import count_macs
from seaformer_jax.models.upsampling import Upsampling


def module(inputs: int = 6, outputs: int = 6, ratio: float = 2.0, stride: int = 8) -> Upsampling:
    return Upsampling(inputs, outputs, ratio, stride, 1, np.random.default_rng(0))


def test_a_fresh_module_interpolates():
    x = np.random.default_rng(1).standard_normal((2, 3, 5, 6)).astype(np.float32)
    found = module()(x, (24, 40), train=False)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(x).permute(0, 3, 1, 2), scale_factor=2, mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(found, expected.permute(0, 2, 3, 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "ratio", "stride", "expected"),
    [
        ((256, 128), 2.0, 8, (64, 32)),
        ((180, 240), 2.0, 8, (45, 60)),  # 23 rows for 180 pixels, 45 for the teacher's 360.
        ((320, 320), 1.5, 8, (60, 60)),
        ((112, 112), 2.0, 64, (4, 4)),
        ((65, 33), 1.0, 8, (9, 5)),
    ],
)
def test_the_map_is_that_of_the_larger_image(size, ratio, stride, expected):
    x = jnp.zeros((1, *(-(-side // stride) for side in size), 6))
    assert module(6, 4, ratio, stride)(x, size, train=False).shape == (1, *expected, 4)


def test_the_block_learns():
    model, x = module(), np.random.default_rng(1).standard_normal((2, 3, 5, 6)).astype(np.float32)
    graphdef, *arrays = nnx.split(model, nnx.Param, ...)
    params, stats = map(nnx.to_pure_dict, arrays)

    def loss(params):
        return jnp.square(nnx.merge(graphdef, params, stats)(x, (24, 40), train=True)).sum()

    gradient = jax.grad(loss)(params)
    assert np.asarray(gradient["block"]["project"]["bn"]["scale"]).all()
    assert model.block.depthwise.conv.kernel.shape == (5, 5, 24)
    assert model.project is None and module(6, 4).project is not None


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_a_student_is_the_model_with_a_module(task):
    plain = create_model("seaformer_tiny", task, 5, seed=3)
    student = create_model("seaformer_tiny", task, 5, seed=3, upsample_ratio=2.0, upsample_width=160)
    assert plain.upsample is None and student.width == 160
    for a, b in zip(*(jax.tree.leaves(nnx.state(m.backbone)) for m in (plain, student)), strict=True):
        assert np.array_equal(a, b)
    graphdef, state = nnx.split(student)
    images = jax.ShapeDtypeStruct((1, 96, 128, 3), jnp.float32)
    logits = jax.eval_shape(lambda state, x: nnx.merge(graphdef, state)(x), state, images)
    assert logits.shape == ((1, 24, 32, 5) if task == "segmentation" else (1, 5))


def test_what_the_module_costs():
    plain, student = (
        create_model("seaformer_tiny", "segmentation", 11, upsample_ratio=ratio) for ratio in (0.0, 2.0)
    )
    width, places, quarter = 96, 45 * 60, 23 * 30
    module_macs = places * (2 * 4 * width**2 + 25 * 4 * width)
    head_macs = (places - quarter) * (width + 11 * width)  # Scale per channel, and last layer.
    difference = count_macs(student, 180, 240).total - count_macs(plain, 180, 240).total
    assert difference == module_macs + head_macs


def test_a_ratio_below_one_is_refused():
    with pytest.raises(UserError, match=r"upsample_ratio is 0\.5; expected 0 \(no module\) or at least 1"):
        create_model("seaformer_tiny", upsample_ratio=0.5)
