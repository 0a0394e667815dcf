"""The forms of the convolutions: all equal PyTorch in values and gradients, and the platform chooses among them."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from seaformer_jax.models import convolution, depthwise, forms, grouped
from tests.models.arrays import nchw, nhwc, normal

DEPTHWISE = {"shifted": depthwise.shifted_depthwise_conv, "grouped": convolution.grouped_depthwise_conv}
GROUPED = {  # In four groups.
    "shifted in groups": lambda x, kernel, _: grouped.shifted_grouped_conv(x, kernel, 4),
    "convolution in groups": lambda x, kernel, stride: convolution.convolution(x, kernel, stride, 4),
}
PRODUCTS = {"flat": forms._flat_product, "last axis": convolution.product}


def check(form, x: np.ndarray, kernel: np.ndarray, reference, kernel_to_torch, kernel_from_torch) -> None:
    """Compares the values and both gradients of `form` with those of a PyTorch function."""
    theirs = nchw(x).requires_grad_(), torch.from_numpy(kernel_to_torch(kernel).copy()).requires_grad_()
    expected = reference(*theirs)
    # The weight of each output in the scalar that is differentiated.
    weight = normal(3, *nhwc(expected).shape)
    (expected * nchw(weight)).sum().backward()
    y, backward = jax.vjp(form, jnp.asarray(x), jnp.asarray(kernel))
    x_grad, kernel_grad = backward(jnp.asarray(weight))
    np.testing.assert_allclose(y, nhwc(expected), rtol=0, atol=1e-5)
    np.testing.assert_allclose(x_grad, nhwc(theirs[0].grad), rtol=0, atol=1e-5)
    np.testing.assert_allclose(kernel_grad, kernel_from_torch(theirs[1].grad.numpy()), rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (6, 11), (1, 2)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("form", DEPTHWISE)
def test_depthwise_forms_equal_pytorch(form, k, stride, size):
    check(
        lambda x, kernel: DEPTHWISE[form](x, kernel, stride),
        normal(1, 2, *size, 6),
        normal(2, k, k, 6),
        lambda x, kernel: F.conv2d(x, kernel, stride=stride, padding=k // 2, groups=6),
        lambda kernel: kernel.transpose(2, 0, 1)[:, None],
        lambda kernel: kernel[:, 0].transpose(1, 2, 0),
    )


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (6, 11)])
@pytest.mark.parametrize(("k", "stride"), [(3, 2), (3, 1), (5, 2)])
def test_convolution_equals_pytorch(k, stride, size):
    check(
        lambda x, kernel: convolution.convolution(x, kernel, stride, 1),
        normal(1, 2, *size, 3),
        normal(2, k, k, 3, 4),
        lambda x, kernel: F.conv2d(x, kernel, stride=stride, padding=k // 2),
        lambda kernel: kernel.transpose(3, 2, 0, 1),
        lambda kernel: kernel.transpose(2, 3, 1, 0),
    )


@pytest.mark.parametrize("size", [(7, 9), (1, 2)])
@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("form", GROUPED)
def test_grouped_forms_equal_pytorch(form, k, size):
    check(
        lambda x, kernel: GROUPED[form](x, kernel, 1),
        normal(1, 2, *size, 4 * 3),
        normal(2, k, k, 3, 4 * 2),
        lambda x, kernel: F.conv2d(x, kernel, padding=k // 2, groups=4),
        lambda kernel: kernel.transpose(3, 2, 0, 1),
        lambda kernel: kernel.transpose(2, 3, 1, 0),
    )


@pytest.mark.parametrize("form", PRODUCTS)
def test_products_equal_pytorch(form):
    check(
        PRODUCTS[form],
        normal(1, 2, 3, 5, 4),
        normal(2, 4, 6),
        lambda x, kernel: F.conv2d(x, kernel),
        lambda kernel: kernel.T[:, :, None, None],
        lambda kernel: kernel[:, :, 0, 0].T,
    )


ALL = {
    **{name: (form, (3, 3, 4)) for name, form in DEPTHWISE.items()},
    "conv": (lambda x, kernel, stride: convolution.convolution(x, kernel, stride, 1), (3, 3, 4, 8)),
    **{name: (form, (3, 3, 1, 8)) for name, form in GROUPED.items()},
    **{name: (lambda x, kernel, _, form=form: form(x, kernel), (4, 8)) for name, form in PRODUCTS.items()},
}


@pytest.mark.parametrize("name", ALL)
def test_kernel_gradients_are_float32(name):
    form, shape = ALL[name]
    x, kernel = jnp.asarray(normal(1, 4, 32, 32, 4), jnp.bfloat16), jnp.asarray(normal(2, *shape))
    rounded = kernel.astype(jnp.bfloat16).astype(jnp.float32)
    y, backward = jax.vjp(lambda kernel: form(x, kernel, 1), kernel)
    weight = jnp.asarray(normal(3, *y.shape), jnp.bfloat16)
    assert y.dtype == jnp.bfloat16
    gradient = backward(weight)[0]
    assert gradient.dtype == jnp.float32
    # The same values in float32; bfloat16 would differ by up to 0.4 %.
    _, exact = jax.vjp(lambda kernel: form(x.astype(jnp.float32), kernel, 1), rounded)
    np.testing.assert_allclose(gradient, exact(weight.astype(jnp.float32))[0], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("devices", [2, 3, 4])
def test_the_shifted_form_does_not_depend_on_the_number_of_devices(monkeypatch, devices):
    x, kernel, weight = normal(1, 4, 7, 6, 5), jnp.asarray(normal(2, 3, 3, 5)), normal(3, 4, 4, 3, 5)

    def kernel_gradient():
        _, backward = jax.vjp(lambda kernel: depthwise.shifted_depthwise_conv(x, kernel, 2), kernel)
        return backward(jnp.asarray(weight))[0]

    expected = kernel_gradient()
    monkeypatch.setattr(depthwise.mesh, "batch_devices", lambda: devices)
    np.testing.assert_allclose(kernel_gradient(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("platform", "on_cpu"), [("cpu", True), ("cuda", False), ("tpu", False)])
def test_the_platform_that_is_compiled_for_chooses(platform, on_cpu):
    def program(form, kernel_shape: tuple[int, ...]) -> str:
        def loss(x, kernel):
            return form(x, kernel).sum()

        arguments = jnp.ones((2, 8, 8, 4)), jnp.ones(kernel_shape)
        traced = jax.jit(jax.grad(loss, (0, 1))).trace(*arguments)
        return traced.lower(lowering_platforms=(platform,)).as_text()

    text = program(lambda x, kernel: forms.depthwise_conv(x, kernel, 1), (3, 3, 4))
    assert ("stablehlo.while" in text, "stablehlo.convolution" in text) == (on_cpu, not on_cpu)
    text = program(lambda x, kernel: forms.grouped_conv(x, kernel, 2), (3, 3, 2, 4))
    assert ("stablehlo.dot_general" in text, "stablehlo.convolution" in text) == (on_cpu, not on_cpu)
    assert ("tensor<128x4xf32>" in program(forms.pointwise, (4, 4))) == on_cpu  # 2 * 8 * 8 rows.


@pytest.mark.parametrize(("platform", "dtype"), [("cuda", "bf16"), ("tpu", "f32")])
def test_cudnn_gets_no_float32_inputs(platform, dtype):
    def loss(kernel, x):
        return convolution.convolution(x, kernel, 1, 1).astype(jnp.float32).sum()

    arguments = jnp.ones((3, 3, 4, 8)), jnp.ones((2, 8, 8, 4), jnp.bfloat16)
    text = jax.jit(jax.grad(loss)).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()
    lines = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    assert f"-> tensor<3x3x4x8x{dtype}>" in lines[-1]


def test_an_export_for_two_platforms_has_the_forms_of_both():
    x, kernel = jnp.asarray(normal(1, 2, 8, 8, 4)), jnp.asarray(normal(2, 3, 3, 4))
    convolve = jax.jit(lambda x, kernel: forms.depthwise_conv(x, kernel, 1))
    exported = jax.export.export(convolve, platforms=("cpu", "tpu"))(x, kernel)
    assert "stablehlo.while" in exported.mlir_module()
    assert "stablehlo.convolution" in exported.mlir_module()
    np.testing.assert_allclose(exported.call(x, kernel), convolve(x, kernel), rtol=0, atol=1e-6)


def test_a_single_tap_is_a_product():
    x, kernel = jnp.asarray(normal(1, 2, 5, 4, 3)), jnp.asarray(normal(2, 1, 1, 3))
    expected = convolution.grouped_depthwise_conv(x, kernel, 1)
    np.testing.assert_allclose(forms.depthwise_conv(x, kernel, 1), expected, rtol=0, atol=1e-6)
