"""The layers against PyTorch's, in values, gradients and statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch.nn import functional as F

from seaformer_jax import create_model
from seaformer_jax.models import layers

FORMS = {"shifted": layers.shifted_depthwise_conv, "grouped": layers.grouped_depthwise_conv}
RNG = np.random.default_rng(0)  # for the layers whose values the test replaces or does not look at


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def nchw(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def nhwc(x: torch.Tensor) -> np.ndarray:
    return x.detach().numpy().transpose(0, 2, 3, 1)


# Convolutions.


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (6, 11), (1, 2)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("form", FORMS)
def test_depthwise_forms_equal_pytorch_in_values_and_gradients(form, k, stride, size):
    x, kernel = normal(1, 2, *size, 6), normal(2, k, k, 6)
    x_torch = nchw(x).requires_grad_()
    kernel_torch = torch.from_numpy(kernel.transpose(2, 0, 1)[:, None].copy()).requires_grad_()
    expected = F.conv2d(x_torch, kernel_torch, stride=stride, padding=k // 2, groups=6)
    weight = normal(3, *nhwc(expected).shape)  # of every output in the scalar whose gradient is taken
    (expected * nchw(weight)).sum().backward()

    y, backward = jax.vjp(
        lambda x, kernel: FORMS[form](x, kernel, stride), jnp.asarray(x), jnp.asarray(kernel)
    )
    x_grad, kernel_grad = backward(jnp.asarray(weight))
    np.testing.assert_allclose(y, nhwc(expected), rtol=0, atol=1e-5)
    np.testing.assert_allclose(x_grad, nhwc(x_torch.grad), rtol=0, atol=1e-5)
    expected_grad = kernel_torch.grad[:, 0].numpy().transpose(1, 2, 0)
    np.testing.assert_allclose(kernel_grad, expected_grad, rtol=0, atol=1e-4)


@pytest.mark.parametrize("devices", [2, 3, 4])
def test_kernel_gradient_does_not_depend_on_the_number_of_devices(monkeypatch, devices):
    x, kernel, weight = normal(1, 4, 7, 6, 5), normal(2, 3, 3, 5), normal(3, 4, 4, 3, 5)

    def kernel_gradient():
        _, backward = jax.vjp(lambda kernel: layers.shifted_depthwise_conv(x, kernel, 2), jnp.asarray(kernel))
        return backward(jnp.asarray(weight))[0]

    expected = kernel_gradient()
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    np.testing.assert_allclose(kernel_gradient(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("backend", "form"), [("cpu", "shifted"), ("gpu", "grouped"), ("tpu", "grouped")])
def test_backend_chooses_the_depthwise_form(monkeypatch, backend, form):
    for name in FORMS:
        monkeypatch.setattr(layers, f"{name}_depthwise_conv", lambda x, kernel, stride, name=name: name)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert layers.depthwise_conv.__wrapped__(None, np.zeros((3, 3, 1)), 1) == form


def test_a_single_tap_is_a_product():
    x, kernel = jnp.asarray(normal(1, 2, 5, 4, 3)), jnp.asarray(normal(2, 1, 1, 3))
    np.testing.assert_allclose(
        layers.depthwise_conv(x, kernel, 1), layers.grouped_depthwise_conv(x, kernel, 1), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (6, 11)])
@pytest.mark.parametrize(("k", "stride"), [(3, 2), (3, 1), (5, 2)])
def test_conv_pads_as_pytorch(k, stride, size):
    conv = layers.Conv(3, 4, k, stride, RNG)
    reference = torch.nn.Conv2d(3, 4, k, stride, padding=k // 2, bias=False)
    reference.weight.data = torch.from_numpy(np.asarray(conv.kernel[...]).transpose(3, 2, 0, 1).copy())
    x = normal(1, 2, *size, 3)
    np.testing.assert_allclose(conv(jnp.asarray(x)), nhwc(reference(nchw(x))), rtol=0, atol=1e-5)


def test_depthwise_layer_adds_its_bias():
    layer = layers.Depthwise(4, 3, RNG, stride=2, use_bias=True)
    x = jnp.asarray(normal(1, 1, 5, 5, 4))
    expected = layers.shifted_depthwise_conv(x, layer.kernel[...], 2) + layer.bias[...]
    np.testing.assert_allclose(layer(x), expected, rtol=0, atol=1e-6)


def test_pointwise_equals_linear():
    layer = layers.Pointwise(5, 3, RNG, use_bias=True)
    x, kernel, bias = normal(1, 2, 4, 6, 5), np.array(layer.kernel[...]), np.array(layer.bias[...])
    expected = F.linear(*(torch.from_numpy(array) for array in (x, kernel.T, bias)))
    np.testing.assert_allclose(layer(jnp.asarray(x)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "reference"),
    [
        (layers.Pointwise(64, 96, RNG, use_bias=True), torch.nn.Linear(64, 96)),
        (layers.Conv(12, 64, 3, 2, RNG), torch.nn.Conv2d(12, 64, 3, bias=False)),
        (layers.Depthwise(512, 5, RNG, use_bias=True), torch.nn.Conv2d(512, 512, 5, groups=512)),
    ],
    ids=["pointwise", "conv", "depthwise"],
)
def test_initial_values_are_distributed_as_pytorchs(layer, reference):
    pairs = [(layer.kernel, reference.weight)]
    pairs += [(layer.bias, reference.bias)] if reference.bias is not None else []
    for ours, theirs in pairs:
        ours, theirs = np.asarray(ours[...]), theirs.detach().numpy()
        assert ours.size == theirs.size
        assert ours.dtype == np.float32
        # Uniform: the extremes give the bounds, the deviation the shape in between.
        for of in (np.min, np.max, np.std):
            assert of(ours) == pytest.approx(of(theirs), rel=0.15)
        assert abs(ours.mean()) < 5 * theirs.std() / ours.size**0.5


# Batch normalisation.


def batchnorm_pair(features: int, groups: int = 1) -> tuple[layers.BatchNorm, list[torch.nn.BatchNorm2d]]:
    """Ours, and one float64 PyTorch module for each group, all of the same scale and bias."""
    scale, bias = normal(1, features), normal(2, features)
    ours = layers.BatchNorm(features, groups=groups)
    ours.scale[...], ours.bias[...] = jnp.asarray(scale), jnp.asarray(bias)
    references = [torch.nn.BatchNorm2d(features) for _ in range(groups)]
    for reference in references:
        reference.weight.data, reference.bias.data = torch.from_numpy(scale), torch.from_numpy(bias)
        reference.double()
    return ours, references


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("mean", [0, 300])
def test_batchnorm_equals_one_pytorch_module_per_group(groups, mean):
    ours, references = batchnorm_pair(5, groups)
    for step in range(2):
        x, weight = normal(10 + step, 4, 3, 2, 5) + np.float32(mean), normal(20 + step, 4, 3, 2, 5)
        x_torch = nchw(x).double().requires_grad_()
        chunks = zip(references, x_torch.chunk(groups), strict=True)
        expected = torch.cat([reference(chunk) for reference, chunk in chunks])
        for reference in references:
            reference.zero_grad()
        (expected * nchw(weight)).sum().backward()

        def loss(bn, x, weight=weight):
            y = bn(x, train=True)
            return (y * weight).sum(), y

        (grads, x_grad), y = nnx.grad(loss, argnums=(0, 1), has_aux=True)(ours, jnp.asarray(x))
        np.testing.assert_allclose(y, nhwc(expected), rtol=0, atol=2e-4)
        np.testing.assert_allclose(x_grad, nhwc(x_torch.grad), rtol=0, atol=5e-4)
        for name, theirs in {"scale": "weight", "bias": "bias"}.items():
            total = sum(getattr(reference, theirs).grad for reference in references)
            np.testing.assert_allclose(grads[name][...], total, rtol=0, atol=5e-4)

    for name, theirs in {"mean": "running_mean", "var": "running_var"}.items():
        expected = torch.stack([getattr(reference, theirs) for reference in references]).mean(0)
        np.testing.assert_allclose(getattr(ours, name)[...], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mean", [0, 300])
def test_batchnorm_in_evaluation_equals_pytorch_and_leaves_the_statistics(mean):
    ours, (reference,) = batchnorm_pair(5)
    stats = normal(3, 5) + np.float32(mean), np.square(normal(4, 5))
    ours.mean[...], ours.var[...] = (jnp.asarray(value) for value in stats)
    reference.running_mean, reference.running_var = (torch.from_numpy(value).double() for value in stats)
    x = normal(30, 3, 3, 2, 5) + np.float32(mean)
    expected = nhwc(reference.eval()(nchw(x).double()))
    np.testing.assert_allclose(ours(jnp.asarray(x), train=False), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal([ours.mean[...], ours.var[...]], stats)


def test_large_mean_keeps_its_variance():
    x = normal(0, 8, 16, 16, 3) + np.float32(300)
    bn = layers.BatchNorm(3)
    y = np.asarray(bn(jnp.asarray(x), train=True))
    exact = x.astype(np.float64).reshape(-1, 3)
    np.testing.assert_allclose(bn.mean[...], 0.1 * exact.mean(0), rtol=1e-6)
    np.testing.assert_allclose(bn.var[...], 0.9 + 0.1 * exact.var(0, ddof=1), rtol=1e-6)
    np.testing.assert_allclose(y.reshape(-1, 3).std(0), 1, rtol=1e-4)


def test_one_value_per_channel_stays_finite():
    bn = layers.BatchNorm(3)
    y = bn(jnp.ones((1, 1, 1, 3)), train=True)
    assert jnp.isfinite(y).all()
    assert jnp.isfinite(bn.var[...]).all()


def test_batch_that_does_not_divide_is_an_error():
    with pytest.raises(ValueError, match="batch of 6 images does not divide into 4"):
        layers.BatchNorm(3, groups=4)(jnp.ones((6, 2, 2, 3)), train=True)


# Stochastic depth.


def test_drop_path_drops_whole_images_and_scales_the_rest():
    x = jnp.asarray(normal(0, 4000, 2, 1, 3))
    y = np.asarray(layers.drop_path(x, 0.25, nnx.Rngs(dropout=0)))
    kept = y.any((1, 2, 3))
    np.testing.assert_allclose(y[kept], np.asarray(x)[kept] / 0.75, rtol=1e-6)
    assert kept.mean() == pytest.approx(0.75, abs=0.035)  # 5 standard errors


def test_drop_path_draws_anew_from_its_stream():
    rngs, x = nnx.Rngs(dropout=0), jnp.ones((64, 1, 1, 1))
    first, second = (layers.drop_path(x, 0.5, rngs) for _ in range(2))
    assert (first != second).any()
    assert (layers.drop_path(x, 0.5, nnx.Rngs(dropout=0)) == first).all()


def test_drop_path_without_a_stream_or_rate_is_the_identity():
    x = jnp.ones((8, 1, 1, 1))
    assert layers.drop_path(x, 0.9, None) is x
    assert layers.drop_path(x, 0.0, nnx.Rngs(dropout=0)) is x


def test_drop_path_keeps_bfloat16():
    assert (
        layers.drop_path(jnp.ones((2, 1, 1, 1), jnp.bfloat16), 0.5, nnx.Rngs(dropout=0)).dtype == jnp.bfloat16
    )


# Mixed precision.


def test_bfloat16_model_keeps_parameters_statistics_and_logits_in_float32():
    graphdef, state = nnx.split(create_model("seaformer_tiny", num_classes=10, dtype="bfloat16"))

    def forward(state, images):
        model = nnx.merge(graphdef, state)
        features, logits = model.backbone(images, train=True), model(images, train=True)
        return features, logits, nnx.state(model)

    def dtypes(tree) -> set[str]:
        return {leaf.dtype.name for leaf in jax.tree.leaves(tree)}

    features, logits, after = jax.eval_shape(forward, state, jnp.zeros((8, 64, 64, 3)))
    assert dtypes(features) == {"bfloat16"}
    assert dtypes(logits) == dtypes(state) == dtypes(after) == {"float32"}


def test_bfloat16_logits_are_close_to_float32():
    full, mixed = (create_model("seaformer_tiny", num_classes=10, dtype=d) for d in ("float32", "bfloat16"))
    images = jnp.asarray(normal(0, 8, 64, 64, 3))
    forward = nnx.jit(lambda model, images: model(images))
    expected, logits = forward(full, images), forward(mixed, images)
    assert jnp.linalg.norm(logits - expected) < 0.03 * jnp.linalg.norm(expected)


def test_batchnorm_of_bfloat16_takes_its_statistics_in_float32():
    bn, x = layers.BatchNorm(3), jnp.asarray(normal(0, 64, 16, 16, 3)).astype(jnp.bfloat16)
    assert bn(x, train=True).dtype == jnp.bfloat16
    exact = np.asarray(x, np.float64).reshape(-1, 3)
    np.testing.assert_allclose(bn.mean[...], 0.1 * exact.mean(0), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(bn.var[...], 0.9 + 0.1 * exact.var(0, ddof=1), rtol=1e-5)
