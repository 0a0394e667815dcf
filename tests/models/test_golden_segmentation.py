"""The JAX segmentation models against stored outputs of the official models and against the PyTorch mirror."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx
from torch.nn import functional as F

from convert import torch_segmentation, weights
from seaformer_jax import create_model
from seaformer_jax.resize import resize_linear
from tests import golden

IGNORED = 255
QUICK = {"xla_backend_optimization_level": 0}  # Compiling takes most of this file's time.


def jax_model(name: str, state_dict: dict[str, np.ndarray], **options) -> nnx.Module:
    classes = len(state_dict["decode_head.conv_seg.bias"])
    model = create_model(name, "segmentation", classes, seed=1, drop_path_rate=0.0, **options)
    weights.from_torch(model, state_dict)
    return model


def jax_forward(model: nnx.Module, images: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Returns logits [B, classes, h, w] and the stages' feature maps for images [B, 3, H, W], in evaluation mode."""
    graphdef, state = nnx.split(model)

    def forward(state, images):
        model = nnx.merge(graphdef, state)
        return model(images, train=False), model.backbone(images)

    forward = jax.jit(forward, compiler_options=QUICK)
    logits, features = forward(state, images.transpose(0, 2, 3, 1))
    return np.asarray(logits).transpose(0, 3, 1, 2), features


def jax_loss(logits: jax.Array, labels: np.ndarray) -> jax.Array:
    """Returns the mean cross-entropy over the pixels that are not ignored.

    The logits [B, h, w, C] are resized to the labels [B, H, W].
    """
    logits = resize_linear(logits, (*labels.shape, logits.shape[-1]))
    valid = jnp.asarray(labels != IGNORED)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(valid, labels, 0))
    return jnp.where(valid, losses, 0).sum() / valid.sum()


class Step(NamedTuple):
    loss: float
    logits: np.ndarray  # [B, classes, h, w]
    grads: dict[str, np.ndarray]  # Official name -> gradient in PyTorch's layout.
    stats: dict[str, np.ndarray]  # Official name -> running mean or variance after the step.


def jax_step(model: nnx.Module, images: np.ndarray, labels: np.ndarray) -> Step:
    graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)

    def loss_fn(params, stats, x):
        model = nnx.merge(graphdef, params, stats)
        logits = model(x, train=True)
        return jax_loss(logits, labels), (logits, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))

    step = jax.jit(jax.value_and_grad(loss_fn, has_aux=True), compiler_options=QUICK)
    args = nnx.to_pure_dict(params), nnx.to_pure_dict(stats), images.transpose(0, 2, 3, 1)
    (loss, (logits, stats)), grads = step(*args)
    # The gradients take the place of the parameters, so `to_torch` gives them their official names.
    named = weights.to_torch(nnx.merge(graphdef, grads, stats))
    return Step(float(loss), np.asarray(logits).transpose(0, 3, 1, 2), *split_names(named))


def split_names(state_dict: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Splits a state dict into its parameters and its running statistics."""
    stats = {name: value for name, value in state_dict.items() if ".running_" in name}
    others = {name: value for name, value in state_dict.items() if name not in stats}
    return {name: value for name, value in others.items() if "num_batches" not in name}, stats


# Against the official model.


@pytest.mark.parametrize("size", ["tiny", pytest.param("large", marks=pytest.mark.slow)])
def test_eval_logits_equal_official(size):
    expected = golden.load(f"seg_{size}_eval_200x264")
    model = jax_model(f"seaformer_{size}", golden.fill(golden.state_dict_shapes(f"seg_{size}")))
    images = golden.images((1, 3, 200, 264), seed=1)
    logits, features = jax_forward(model, images)
    np.testing.assert_allclose(logits, expected["logits"], rtol=0, atol=1e-4)
    contexts = len(model.head.fuse)
    for i, feature in enumerate([features[1], *features[-contexts:]]):  # As the official backbone.
        assert tuple(expected[f"feature{i}_shape"][[0, 2, 3, 1]]) == feature.shape
        np.testing.assert_allclose(feature.mean((1, 2)), expected[f"feature{i}_mean"], rtol=0, atol=1e-4)


def test_padded_eval_logits_equal_official():
    expected = golden.load("seg_tiny_eval_200x264")["logits"].transpose(0, 2, 3, 1)
    model = jax_model("seaformer_tiny", golden.fill(golden.state_dict_shapes("seg_tiny")))
    images = golden.images((2, 3, 256, 320), seed=2).transpose(0, 2, 3, 1)
    images[:1, :200, :264] = golden.images((1, 3, 200, 264), seed=1).transpose(0, 2, 3, 1)
    graphdef, state = nnx.split(model)
    forward = jax.jit(lambda s, x, sizes: nnx.merge(graphdef, s)(x, sizes=sizes), compiler_options=QUICK)
    logits = forward(state, images, np.array([[200, 264], [256, 255]]))
    np.testing.assert_allclose(logits[:1, :25, :33], expected, rtol=0, atol=1e-4)


def test_train_step_equals_official():
    expected = golden.load("seg_tiny_train_128x160")
    model = jax_model("seaformer_tiny", golden.fill(golden.state_dict_shapes("seg_tiny")))
    labels = np.random.default_rng(4).integers(0, 151, (4, 128, 160))
    labels = np.where(labels == 150, IGNORED, labels)
    found = jax_step(model, golden.images((4, 3, 128, 160), seed=3), labels)
    np.testing.assert_allclose(found.loss, expected["loss"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(found.logits, expected["logits"], rtol=0, atol=1e-4)
    assert found.grads.keys() == set(expected["param_names"].tolist())
    norms = [np.linalg.norm(found.grads[name].astype(np.float64)) for name in expected["param_names"]]
    # The gradient of a shift that the next BatchNorm removes is 0 except for rounding noise, hence atol.
    np.testing.assert_allclose(norms, expected["grad_norms"], rtol=1e-3, atol=1e-5)


# Against the PyTorch mirror.


def filled(name: str, num_classes: int, **options) -> tuple[torch.nn.Module, dict[str, np.ndarray]]:
    """Returns the mirror with the weights of `golden.fill` and without stochastic depth, and its state dict.

    With such small weights attention is nearly an average, so the attention weights of `mini` are made larger.
    """
    model = torch_segmentation.create_model(name, num_classes, drop_path_rate=0.0, **options)
    model.decode_head.dropout.p = 0.0
    arrays = golden.fill({entry: tuple(value.shape) for entry, value in model.state_dict().items()})
    if name == "mini":
        arrays |= {k: 4 * value for k, value in arrays.items() if ".attn." in k and value.ndim == 4}
    model.load_state_dict({entry: torch.from_numpy(array) for entry, array in arrays.items()})
    return model, arrays


def torch_logits(model: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return model.eval()(torch.from_numpy(images)).numpy()


@pytest.mark.slow  # The golden files cover the smallest and the largest size.
@pytest.mark.parametrize("name", ["seaformer_base", "seaformer_small"])
def test_eval_logits_equal_pytorch(name):
    reference, state_dict = filled(name, num_classes=11)
    images = golden.images((2, 3, 65, 90), seed=5)  # Odd and even sides at every stage.
    expected = torch_logits(reference, images)
    assert expected.shape == (2, 11, 9, 12)
    found, _ = jax_forward(jax_model(name, state_dict), images)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


ABLATIONS = [
    {"detail_input": "conv"},
    {"detail_input": "upconv"},
    {"detail_input": "upconv", "detail_combine": "add"},
    {"detail_input": "none"},
    {"detail_combine": "add"},
    {"position_embedding": False},
    {"fusion": "multiply"},
    {"fusion": "add"},
    {"fusion": "sigmoid_add"},
    {"fusion_widths": (24, 40)},
]


@pytest.mark.parametrize("options", ABLATIONS, ids=lambda options: "-".join(map(str, options.values())))
def test_ablations_equal_pytorch(mini, options):
    reference, state_dict = filled(mini, num_classes=5, **options)
    images = golden.images((2, 3, 47, 70), seed=7)
    expected, published = torch_logits(reference, images), torch_logits(filled(mini, 5)[0], images)
    assert np.abs(expected - published).max() > 0.01  # The option has an effect.
    model = jax_model(mini, state_dict, **options)
    tolerance = max(1e-4, 2e-5 * np.abs(expected).max())
    np.testing.assert_allclose(jax_forward(model, images)[0], expected, rtol=0, atol=tolerance)
    assert weights.to_torch(model).keys() == state_dict.keys()


ABLATED = {
    "detail_input": "conv",
    "detail_combine": "add",
    "position_embedding": False,
    "fusion": "sigmoid_add",
}


@pytest.mark.parametrize(
    "options",
    [pytest.param({}, id="published"), pytest.param(ABLATED, id="ablated", marks=pytest.mark.slow)],
)
def test_train_step_equals_pytorch(mini, options):
    reference, state_dict = filled(mini, num_classes=5, **options)
    images, labels = (
        golden.images((4, 3, 71, 66), seed=6),
        np.random.default_rng(8).integers(0, 6, (4, 71, 66)),
    )
    labels = np.where(labels == 5, IGNORED, labels)
    logits = reference.train()(torch.from_numpy(images))
    resized = F.interpolate(logits, size=labels.shape[1:], mode="bilinear", align_corners=False)
    loss = F.cross_entropy(resized, torch.from_numpy(labels), ignore_index=IGNORED)
    loss.backward()
    stats = {entry: value.numpy() for entry, value in reference.state_dict().items() if ".running_" in entry}

    found = jax_step(jax_model(mini, state_dict, **options), images, labels)
    np.testing.assert_allclose(found.loss, loss.item(), rtol=0, atol=1e-4)
    np.testing.assert_allclose(found.logits, logits.detach().numpy(), rtol=0, atol=1e-4)
    grads = {entry: parameter.grad.numpy() for entry, parameter in reference.named_parameters()}
    assert found.grads.keys() == grads.keys()
    for entry, grad in grads.items():
        scale = max(np.abs(grad).max(), 1e-2)
        np.testing.assert_allclose(found.grads[entry] / scale, grad / scale, rtol=0, atol=2e-3, err_msg=entry)
    assert found.stats.keys() == stats.keys()
    for entry, value in stats.items():
        np.testing.assert_allclose(found.stats[entry], value, rtol=1e-4, atol=1e-5, err_msg=entry)
