"""The detector against stored outputs of mmdetection's FPN and RetinaHead, alone and on the official backbone."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from convert import weights
from seaformer_jax import create_model
from seaformer_jax.detection.anchors import PER_CELL, corners, level_counts
from seaformer_jax.errors import UserError
from seaformer_jax.models.heads.fpn import _double
from tests import golden, toys

PARAMETERS = {"tiny": 10_911_860, "small": 13_306_820, "base": 18_064_148, "large": 23_516_980}


def detector(state_dict: dict[str, np.ndarray], **options) -> nnx.Module:
    """Returns `seaformer_tiny` as a detector with the arrays of `state_dict`."""
    classes = len(state_dict["bbox_head.retina_cls.bias"]) // PER_CELL
    model = create_model("seaformer_tiny", "detection", classes, drop_path_rate=0.0, **options)
    weights.from_torch(model, state_dict)
    return model


def filled(classes: int) -> dict[str, np.ndarray]:
    """Returns the weights of the golden files for a detector of `classes` classes."""
    shapes = golden.state_dict_shapes("det_T", "detection")
    for name in ("bbox_head.retina_cls.weight", "bbox_head.retina_cls.bias"):
        shapes[name] = (PER_CELL * classes, *shapes[name][1:])
    counters = {
        name.replace("running_var", "num_batches_tracked"): () for name in shapes if "running_var" in name
    }
    return golden.fill(shapes | counters)


def by_level(outputs: jax.Array, maps: list[np.ndarray]) -> list[np.ndarray]:
    """Cuts outputs [B, A, K] into maps of the shapes of `maps`, [B, 9 * K, h, w] each."""
    sizes = [m.shape[2] * m.shape[3] * PER_CELL for m in maps]
    parts = np.split(np.asarray(outputs), np.cumsum(sizes)[:-1], axis=1)
    return [
        part.reshape(len(part), *m.shape[2:], -1).transpose(0, 3, 1, 2)
        for part, m in zip(parts, maps, strict=True)
    ]


def levels(arrays: dict[str, np.ndarray], prefix: str) -> list[np.ndarray]:
    return [arrays[f"{prefix}_{level}"] for level in range(5)]


@pytest.mark.parametrize("size", PARAMETERS)
def test_names_shapes_and_parameters_are_those_of_an_mmdetection_checkpoint(size):
    model = create_model(f"seaformer_{size}", "detection", 80)
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))) == PARAMETERS[size]
    state_dict = weights.to_torch(model)
    found = {name: value.shape for name, value in state_dict.items() if "num_batches" not in name}
    assert found == golden.state_dict_shapes(f"det_{size[0].upper()}", "detection")


@pytest.mark.parametrize("case", ["neck_head_61x93_80", "neck_head_96x160"])
def test_neck_and_head_equal_mmdetection(case):
    expected = golden.load(case, "detection")
    classes = expected["cls_0"].shape[1] // PER_CELL
    model = detector(filled(classes))
    rng = np.random.default_rng(int(expected["seed"]))
    batch = expected["cls_0"].shape[0]
    maps = [
        rng.standard_normal((batch, channels, *expected[f"cls_{level}"].shape[2:])).astype(np.float32)
        for level, channels in enumerate((32, 64, 128, 160))
    ]
    pyramid = model.neck([jnp.asarray(m.transpose(0, 2, 3, 1)) for m in maps])
    for level, found in enumerate(pyramid):
        if f"fpn_{level}" in expected:
            np.testing.assert_allclose(
                found.transpose(0, 3, 1, 2), expected[f"fpn_{level}"], rtol=0, atol=5e-5
            )
        else:
            np.testing.assert_allclose(np.linalg.norm(found), expected[f"fpn_{level}_norm"], rtol=1e-5)
    for outputs, name in zip(model.head(pyramid), ("cls", "box"), strict=True):
        wanted = levels(expected, name)
        for found, reference in zip(by_level(outputs, wanted), wanted, strict=True):
            np.testing.assert_allclose(found, reference, rtol=0, atol=2e-5)


def test_evaluation_equals_mmdetection():
    expected = golden.load("detector_T_eval_203x261", "detection")
    wanted = {name: levels(expected, f"eval_{name}") for name in ("cls", "box")}
    model = detector(filled(wanted["cls"][0].shape[1] // PER_CELL))
    images = golden.images((1, 3, 203, 261), int(expected["seed"])).transpose(0, 2, 3, 1)
    for outputs, reference in zip(model(images), wanted.values(), strict=True):
        for found, maps in zip(by_level(outputs, reference), reference, strict=True):
            np.testing.assert_allclose(found, maps, rtol=0, atol=2e-5)


def test_the_anchors_of_the_outputs_are_counted():
    toys.register()
    model = create_model("nano_detection", "detection", 3)
    logits, deltas = jax.eval_shape(lambda x: model(x), jax.ShapeDtypeStruct((2, 203, 261, 3), jnp.float32))
    count = sum(level_counts(203, 261))
    assert logits.shape == (2, count, 3) and deltas.shape == (2, count, 4)


def test_padded_images_equal_unpadded_ones():
    toys.register()
    model = create_model("nano_detection", "detection", 3, neck_width=8, tower_convs=1)
    for conv in (
        *model.head.class_tower,
        *model.head.box_tower,
        model.head.class_output,
        model.head.box_output,
    ):
        conv.kernel[...] *= 30  # So that differences show.
    images = golden.images((1, 3, 70, 93), 5).transpose(0, 2, 3, 1)
    padded = np.pad(images, ((0, 0), (0, 58), (0, 67), (0, 0)), constant_values=3.0)
    inside = (corners(128, 160) < np.array([70, 93])).all(-1)
    found = model(jnp.asarray(padded), sizes=jnp.array([[70, 93]]))
    for whole, part in zip(model(jnp.asarray(images)), found, strict=True):
        assert np.std(whole) > 1e-3
        np.testing.assert_allclose(part[:, inside], whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("size", "out"), [(13, 25), (13, 26), (2, 3), (1, 1), (1, 2)])
def test_doubling_is_the_nearest_interpolation_of_pytorch(size, out):
    x = np.random.default_rng(0).standard_normal((1, size, size, 2)).astype(np.float32)
    index = np.arange(out) * size // out
    np.testing.assert_array_equal(_double(jnp.asarray(x), (out, out)), x[:, index][:, :, index])


def test_the_initial_values_are_those_of_mmdetection():
    model = create_model("seaformer_tiny", "detection", 80)
    head, neck = model.head, model.neck
    kernel = np.asarray(head.class_tower[0].kernel[...])
    assert kernel.std() == pytest.approx(0.01, rel=0.01) and not np.any(head.class_tower[0].bias[...])
    np.testing.assert_allclose(head.class_output.bias[...], -math.log(99), rtol=1e-6)
    bound = math.sqrt(6 / (9 * (256 + 256)))
    kernel = np.asarray(neck.output[0].kernel[...])
    assert bound * 0.999 < np.abs(kernel).max() <= bound and not np.any(neck.output[4].bias[...])


def test_options_of_other_heads_are_refused():
    with pytest.raises(UserError, match="unknown model option 'fusion' for detection"):
        create_model("seaformer_tiny", "detection", 80, fusion="add")
    with pytest.raises(UserError, match="unknown model option 'neck_width' for segmentation"):
        create_model("seaformer_tiny", "segmentation", 80, neck_width=64)
