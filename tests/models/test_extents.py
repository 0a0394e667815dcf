"""Padded images with their sizes: every image gives what it gives alone, and maps without padding cost nothing."""

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from convert import torch_model, torch_segmentation, weights
from seaformer_jax import create_model
from seaformer_jax.errors import UserError
from seaformer_jax.models import bands
from tests.models.arrays import nchw, nhwc, normal

SHAPE = (64, 128)
# Odd sides, a side that is full, an image of one cell, and a whole one.
SIZES = np.array([[33, 101], [64, 57], [7, 3], [64, 128]])


def livened(name: str, task: str, **options) -> tuple[nnx.Module, torch.nn.Module]:
    """Returns a model and its PyTorch mirror with equal values that matter.

    The attention and the adaptive maps of a fresh model add nothing.
    """
    rng = np.random.default_rng(7)
    create_mirror = {"classification": torch_model, "segmentation": torch_segmentation}[task].create_model
    mirror = create_mirror(name, 5, **options).eval()
    state = {key: value.numpy() for key, value in mirror.state_dict().items()}
    for key, value in state.items():
        if key.endswith("running_var"):
            state[key] = rng.uniform(0.5, 1.5, value.shape).astype(np.float32)
        elif value.ndim:
            spread = 0.3 if value.ndim == 1 else value.std() + 0.03
            state[key] = (value + spread * rng.standard_normal(value.shape)).astype(np.float32)
    mirror.load_state_dict({key: torch.from_numpy(np.asarray(value)) for key, value in state.items()})
    model = create_model(name, task, 5, **options)
    weights.from_torch(model, state)
    return model, mirror


def jitted(model: nnx.Module, method=lambda model, images, sizes: model(images, sizes=sizes)):
    """Returns the function (images, sizes) -> outputs as NumPy arrays, in float32."""
    graphdef, state = nnx.split(model)
    run = jax.jit(lambda state, images, sizes: method(nnx.merge(graphdef, state), images, sizes))
    return lambda *args: jax.tree.map(lambda x: np.asarray(x, np.float32), run(state, *args))


def check(found, reference, images: np.ndarray, sizes: np.ndarray = SIZES, tolerance: float = 1e-5) -> None:
    """Compares the outputs for padded images with those of PyTorch for the same images alone.

    Args:
        found: One array per output, [B, ...].
        reference: Images [1, 3, h, w] -> the same outputs, channels first.
    """

    def outputs(image: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            result = reference(nchw(image))
        result = result if isinstance(result, list) else [result]
        return [(nhwc(y) if y.ndim == 4 else y.numpy())[0] for y in result]

    changed = False
    for index, (height, width) in enumerate(sizes):
        expected, padded = (
            outputs(images[index : index + 1, :height, :width]),
            outputs(images[index : index + 1]),
        )
        for batch, alone, wrong in zip(found, expected, padded, strict=True):
            valid = tuple(slice(n) for n in alone.shape)
            scale = max(1.0, np.abs(alone).max())
            np.testing.assert_allclose(batch[index][valid] / scale, alone / scale, rtol=0, atol=tolerance)
            changed |= np.abs(wrong[valid] - alone).max() > 100 * tolerance * scale
            if alone.ndim == 3:  # Maps are 0 on padding.
                assert (
                    not batch[index, alone.shape[0] :].any() and not batch[index, :, alone.shape[1] :].any()
                )
    assert changed  # Without sizes the padding has an effect.


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("segmentation", {}),
        ("classification", {}),
        ("segmentation", {"adaptive": "both", "upsample_ratio": 1.3, "upsample_width": 8}),
        ("classification", {"adaptive": "squeeze", "adaptive_source": "q", "upsample_ratio": 2.0}),
    ],
)
def test_padded_images_give_what_they_give_alone(mini, task, options):
    model, mirror = livened(mini, task, **options)
    images = normal(5, len(SIZES), *SHAPE, 3)  # The padding has values like those of the images.
    check([jitted(model)(images, SIZES)], mirror, images)


def test_maps_of_all_stages_and_heat_maps(mini):
    model, mirror = livened(mini, "segmentation")
    attention = []
    last = mirror.backbone.trans2.transformer_blocks[-1].attn
    last.register_forward_hook(lambda module, inputs, output: attention.append(output))

    def maps(model, images, sizes):
        return *model.backbone(images, sizes=sizes), model.backbone.last_attention(images, sizes)

    def reference(images):
        features = mirror.backbone.forward_features(images)
        return [*features, attention[-1]]

    images = normal(5, len(SIZES), *SHAPE, 3)
    check(jitted(model, maps)(images, SIZES), reference, images)


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("seaformer_tiny", "segmentation"),
        ("seaformer_plus_tiny", "classification"),
        pytest.param("seaformer_tiny", "classification", marks=pytest.mark.slow),
        pytest.param("seaformer_plus_tiny", "segmentation", marks=pytest.mark.slow),
    ],
)
def test_published_sizes(name, task):
    sizes, images = np.array([[97, 130], [128, 64], [33, 191]]), normal(5, 3, 128, 192, 3)
    model, mirror = livened(name, task)
    check([jitted(model)(images, sizes)], mirror, images, sizes)


def test_bfloat16(mini):
    """The padding has no effect at all on the programs of one shape; rounding differs from that of float32."""
    model = create_model(mini, "segmentation", 5, dtype="bfloat16")
    weights.from_torch(model, weights.to_torch(livened(mini, "segmentation")[0]))
    images = normal(5, len(SIZES), *SHAPE, 3)
    other = images.copy()
    for image, (height, width) in zip(other, SIZES, strict=True):
        image[height:] = image[:, width:] = 9
    run = jitted(model)
    np.testing.assert_array_equal(run(images, SIZES), run(other, SIZES))


def test_bands_of_padded_images(mini, monkeypatch):
    model, _ = livened(mini, "segmentation")
    expected = jitted(model)(images := normal(5, 4, *SHAPE, 3), SIZES)
    monkeypatch.setattr(bands, "count", lambda images: 4)
    np.testing.assert_allclose(jitted(model)(images, SIZES), expected, rtol=0, atol=1e-5)


def operations(jaxpr) -> set[str]:
    """Returns the names of all operations of a program but those of interpolation."""
    names = set()
    for equation in jaxpr.eqns:
        name = equation.params.get("name", equation.primitive.name)
        if name != "resize_linear":
            names.add(name)
            for inner in jax.extend.core.jaxprs_in_params(equation.params):
                names |= operations(inner)
    return names


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_without_sizes_nothing_is_masked(task):
    model = create_model("seaformer_plus_tiny", task, 7, upsample_ratio=2.0)
    graphdef, state = nnx.split(model)

    def forward(state, images, sizes=None):
        return nnx.merge(graphdef, state)(images, sizes=sizes)

    images, sizes = jnp.zeros((2, 96, 130, 3)), jnp.full((2, 2), 96)
    masking = {"select_n", "lt", "iota"}
    assert not masking & operations(jax.make_jaxpr(forward)(state, images).jaxpr)
    assert masking <= operations(jax.make_jaxpr(forward)(state, images, sizes).jaxpr)


def test_sizes_in_training_are_refused(mini):
    model = create_model(mini, num_classes=5)
    with pytest.raises(ValueError, match="sizes are for evaluation mode"):
        model(jnp.zeros((1, *SHAPE, 3)), train=True, sizes=SIZES[:1])


def test_sizes_out_of_range_give_finite_values(mini):
    run = jitted(livened(mini, "segmentation")[0])
    images = normal(5, 2, *SHAPE, 3)
    np.testing.assert_array_equal(
        run(images, np.array([[0, 0], [999, 999]]))[1], run(images, np.array([[1, 1], SHAPE]))[1]
    )
    assert np.isfinite(run(images, np.zeros((2, 2), np.int32))).all()


@pytest.mark.parametrize(
    ("name", "options"),
    [("seaformer_tiny", {"attention": "window"}), ("swin_tiny", {"depths": (1, 1, 1, 1)})],
)
def test_other_attention_refuses_sizes(name, options):
    model = create_model(name, num_classes=5, **options)
    assert not model.backbone.takes_sizes
    with pytest.raises(UserError, match="padding need SEA attention"):
        model(jnp.zeros([1, 64, 64, 3]), sizes=jnp.array([[33, 40]]))
