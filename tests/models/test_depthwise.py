"""Both forms of depthwise convolution against PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from seaformer_jax.models import depthwise
from tests.models.arrays import nchw, nhwc, normal

FORMS = {"shifted": depthwise.shifted_depthwise_conv, "grouped": depthwise.grouped_depthwise_conv}


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (6, 11), (1, 2)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("form", FORMS)
def test_depthwise_forms_equal_pytorch_in_values_and_gradients(form, k, stride, size):
    x, kernel = normal(1, 2, *size, 6), normal(2, k, k, 6)
    x_torch = nchw(x).requires_grad_()
    kernel_torch = torch.from_numpy(kernel.transpose(2, 0, 1)[:, None].copy()).requires_grad_()
    expected = F.conv2d(x_torch, kernel_torch, stride=stride, padding=k // 2, groups=6)
    weight = normal(
        3, *nhwc(expected).shape
    )  # The weight of each output in the scalar that is differentiated.
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
        _, backward = jax.vjp(
            lambda kernel: depthwise.shifted_depthwise_conv(x, kernel, 2), jnp.asarray(kernel)
        )
        return backward(jnp.asarray(weight))[0]

    expected = kernel_gradient()
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    np.testing.assert_allclose(kernel_gradient(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("backend", "form"), [("cpu", "shifted"), ("gpu", "grouped"), ("tpu", "grouped")])
def test_backend_chooses_the_depthwise_form(monkeypatch, backend, form):
    for name in FORMS:
        monkeypatch.setattr(depthwise, f"{name}_depthwise_conv", lambda x, kernel, stride, name=name: name)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert depthwise.depthwise_conv.__wrapped__(None, np.zeros((3, 3, 1)), 1) == form


def test_a_single_tap_is_a_product():
    x, kernel = jnp.asarray(normal(1, 2, 5, 4, 3)), jnp.asarray(normal(2, 1, 1, 3))
    np.testing.assert_allclose(
        depthwise.depthwise_conv(x, kernel, 1),
        depthwise.grouped_depthwise_conv(x, kernel, 1),
        rtol=0,
        atol=1e-6,
    )
