"""The JAX classifiers against stored outputs of the official models and against the PyTorch mirror.

Evaluation alone would not detect a wrong BatchNorm momentum, variance or gradient. Training steps are therefore
compared, too.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx
from torch.nn import functional as F

from convert import torch_model, weights
from seaformer_jax import create_model, list_models
from tests import golden

# The other sizes of SeaFormer++ have the same kinds of blocks as these.
MODELS = [*(name for name in list_models() if "plus" not in name), "seaformer_plus_tiny"]


class Step(NamedTuple):
    loss: float
    logits: np.ndarray  # [B, classes]
    grads: dict[str, np.ndarray]  # Official name -> gradient in PyTorch's layout.
    stats: dict[str, np.ndarray]  # Official name -> running mean or variance after the step.


def jax_model(name: str, state_dict: dict[str, np.ndarray], num_classes: int = 1000) -> nnx.Module:
    model = create_model(name, num_classes=num_classes, drop_path_rate=0.0, seed=1)
    weights.from_torch(model, state_dict)
    return model


def jax_logits(model: nnx.Module, images: np.ndarray, compiler_options: dict | None = None) -> np.ndarray:
    """Returns the logits of images [B, 3, H, W] in evaluation mode."""
    graphdef, state = nnx.split(model)
    forward = jax.jit(
        lambda state, x: nnx.merge(graphdef, state)(x, train=False), compiler_options=compiler_options
    )
    return np.asarray(forward(state, images.transpose(0, 2, 3, 1)))


def jax_step(
    model: nnx.Module, images: np.ndarray, labels: np.ndarray, compiler_options: dict | None = None
) -> Step:
    """Takes one training step."""
    graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)

    def loss_fn(params, stats, x):
        model = nnx.merge(graphdef, params, stats)
        logits = model(x, train=True)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(labels)).mean()
        return loss, (logits, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))

    step = jax.jit(jax.value_and_grad(loss_fn, has_aux=True), compiler_options=compiler_options)
    args = nnx.to_pure_dict(params), nnx.to_pure_dict(stats), images.transpose(0, 2, 3, 1)
    (loss, (logits, stats)), grads = step(*args)
    # The gradients take the place of the parameters, so `to_torch` gives them their official names.
    named = weights.to_torch(nnx.merge(graphdef, grads, stats))
    return Step(float(loss), np.asarray(logits), *split_names(named))


def torch_step(model: torch.nn.Module, images: np.ndarray, labels: np.ndarray) -> Step:
    logits = model.train()(torch.from_numpy(images))
    loss = F.cross_entropy(logits, torch.from_numpy(labels))
    loss.backward()
    grads = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    _, stats = split_names({name: value.numpy() for name, value in model.state_dict().items()})
    return Step(loss.item(), logits.detach().numpy(), grads, stats)


def split_names(state_dict: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Splits a state dict into its parameters and its running statistics."""
    named = {name: value for name, value in state_dict.items() if not name.endswith("num_batches_tracked")}
    stats = {name: value for name, value in named.items() if ".running_" in name}
    return {name: value for name, value in named.items() if name not in stats}, stats


def norms(named: dict[str, np.ndarray], names: np.ndarray) -> list[float]:
    assert named.keys() == set(names.tolist())
    return [np.linalg.norm(named[name].astype(np.float64)) for name in names]


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Returns L2 distance / L2 norm. Adding 1e-2 covers gradients that are 0 except for rounding."""
    return np.linalg.norm(found - expected) / (np.linalg.norm(expected) + 1e-2)


# Against the official model.


CASES = {
    "cls_T_eval_224": ("seaformer_tiny", (2, 3, 224, 224), 0),
    "cls_S_eval_160x256": ("seaformer_small", (2, 3, 160, 256), 1),
    "cls_T_eval_203x261": ("seaformer_tiny", (1, 3, 203, 261), 2),
}
# How the tests compile, and how users do.
QUICK = pytest.param(None, id="quick")
AS_USERS_SLOW = pytest.param(golden.AS_USERS_COMPILE, id="as_users", marks=pytest.mark.slow)


def check_eval_logits(case: str, compiler_options: dict | None) -> None:
    expected, (name, shape, seed) = golden.load(case)["logits"], CASES[case]
    model = jax_model(name, golden.fill(golden.state_dict_shapes(case[:5])))
    found = jax_logits(model, golden.images(shape, seed), compiler_options)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_eval_logits_equal_official_as_users_compile():
    check_eval_logits("cls_T_eval_224", golden.AS_USERS_COMPILE)


@pytest.mark.parametrize("options", [QUICK, AS_USERS_SLOW])
@pytest.mark.parametrize("case", [case for case in CASES if case != "cls_T_eval_224"])
def test_eval_logits_equal_official(case, options):
    check_eval_logits(case, options)


@pytest.mark.parametrize("options", [QUICK, AS_USERS_SLOW])
def test_train_step_equals_official(options):
    expected = golden.load("cls_T_train_96")
    model = jax_model("seaformer_tiny", golden.fill(golden.state_dict_shapes("cls_T")))
    found = jax_step(model, golden.images((8, 3, 96, 96), seed=3), np.arange(8) * 100, options)
    np.testing.assert_allclose(found.loss, expected["loss"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(found.logits, expected["logits"], rtol=0, atol=1e-4)
    grad_norms = norms(found.grads, expected["param_names"])
    # The gradient of a shift that the next BatchNorm removes is 0 except for rounding noise, hence atol (norms reach
    # 51).
    np.testing.assert_allclose(grad_norms, expected["grad_norms"], rtol=1e-3, atol=1e-5)
    buffer_norms = norms(found.stats, expected["buffer_names"])
    np.testing.assert_allclose(buffer_norms, expected["buffer_norms"], rtol=1e-4)


# Against the PyTorch mirror: every size, without stored files.


def filled(name: str, num_classes: int) -> tuple[torch_model.SeaFormer, dict[str, np.ndarray]]:
    """Returns the mirror with the weights of `golden.fill` and without stochastic depth, and its state dict."""
    model = torch_model.create_model(name, num_classes, drop_path_rate=0.0)
    arrays = golden.fill({entry: tuple(value.shape) for entry, value in model.state_dict().items()})
    model.load_state_dict({entry: torch.from_numpy(array) for entry, array in arrays.items()})
    return model, arrays


# The published sizes have more of the same blocks as `mini`; `make test` counts their parameters (test_registry.py).
SIZES = ["mini", *(pytest.param(name, marks=pytest.mark.slow) for name in MODELS)]


@pytest.fixture(autouse=True)
def registered(mini):
    """Makes `mini` known."""


@pytest.mark.parametrize("name", SIZES)
def test_eval_logits_equal_pytorch(name):
    reference, state_dict = filled(name, num_classes=11)
    images = golden.images((2, 3, 65, 90), seed=5)  # Odd and even sides at every stage.
    images[1] *= 30  # Far beyond 6, so that ReLU and ReLU6 differ.
    with torch.inference_mode():
        expected = reference.eval()(torch.from_numpy(images)).numpy()
    found = jax_logits(jax_model(name, state_dict, num_classes=11), images)
    np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=1e-4)
    np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=1e-5 * np.abs(expected[1]).max())


@pytest.mark.parametrize("name", SIZES)
def test_train_step_equals_pytorch(name):
    reference, state_dict = filled(name, num_classes=11)
    images, labels = golden.images((4, 3, 95, 66), seed=6), np.array([0, 3, 10, 3])
    expected = torch_step(reference, images, labels)
    found = jax_step(jax_model(name, state_dict, num_classes=11), images, labels)

    np.testing.assert_allclose(found.loss, expected.loss, rtol=0, atol=1e-4)
    np.testing.assert_allclose(found.logits, expected.logits, rtol=0, atol=1e-4)
    errors = {entry: relative_error(found.grads[entry], grad) for entry, grad in expected.grads.items()}
    assert found.grads.keys() == errors.keys()
    # Rounding can move a value near 0 to the other side of a ReLU, which changes every gradient before it.
    # The mirror in float32 differs from itself in float64 by up to 0.02, with a median of 0.003 (base).
    assert max(errors.values()) < 0.1, max(errors, key=errors.get)
    assert np.median(list(errors.values())) < 0.01
    assert found.stats.keys() == expected.stats.keys()
    for entry, value in expected.stats.items():
        np.testing.assert_allclose(found.stats[entry], value, rtol=1e-4, atol=1e-5, err_msg=entry)
