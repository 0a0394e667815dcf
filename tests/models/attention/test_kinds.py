"""Every kind of attention against the outputs and gradients of its authors' code."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from convert import weights
from experiments.golden_vectors import fill
from seaformer_jax.models import attention
from tests import golden

# `sea_plus` has no published code; it equals `sea` at the start (test_adaptive_squeeze.py).
KINDS = [kind for kind in attention.KINDS if kind != "sea_plus"]
SIZES = ("2x14x14", "1x12x20")


def load(name: str) -> tuple[dict, dict, dict[str, np.ndarray]]:
    """Returns the config, the state dict and the stored values of a case."""
    stored = golden.load(f"attention/{name}")
    shapes = {entry: tuple(shape) for entry, shape in json.loads(str(stored["shapes"])).items()}
    return json.loads(str(stored["config"])), fill(shapes), stored


def build(config: dict, state_dict: dict[str, np.ndarray]) -> nnx.Module:
    size = (config["H"], config["W"])
    module = attention.create(config["module"], config["C"], config["heads"], seed=1, size=size)
    weights.from_torch(module, state_dict)
    return module


def normal(config: dict, more: int = 0) -> jax.Array:
    shape, seed = [config[axis] for axis in "BHWC"], 1000 * config["H"] + config["W"] + more
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def run(module: nnx.Module, config: dict, train: bool) -> tuple[np.ndarray, dict[str, np.ndarray], float]:
    """Returns the output, the gradients by official name, and the norm of the gradient of x."""
    graphdef, params, stats = nnx.split(module, nnx.Param, nnx.BatchStat)
    x, g = normal(config), normal(config, 1)

    def loss(params, x, stats):
        y = nnx.merge(graphdef, params, stats)(x, train)
        return (y * g).sum(), y

    trees = [nnx.to_pure_dict(state) for state in (params, stats)]
    (grads, dx), y = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(trees[0], x, trees[1])
    named = weights.to_torch(nnx.merge(graphdef, grads, stats))
    return np.asarray(y), named, float(jnp.linalg.norm(dx))


def check_norms(grads: dict[str, np.ndarray], names: np.ndarray, expected: np.ndarray) -> None:
    found = np.array([np.linalg.norm(grads[name].astype(np.float64)) for name in names])
    tolerance = 1e-3 * np.maximum(expected, 1e-3 * expected.max())
    wrong = np.abs(found - expected) > tolerance
    assert not wrong.any(), list(zip(names[wrong], found[wrong], expected[wrong], strict=True))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_authors_code(kind, size):
    config, state_dict, stored = load(f"{kind}_{size}")
    module = build(config, state_dict)
    y, grads, dx_norm = run(module, config, train=False)
    np.testing.assert_allclose(y, stored["y"], rtol=0, atol=5e-5 if kind == "axial_deeplab" else 2e-5)
    check_norms(grads, stored["param_names"], stored["grad_norms"])
    np.testing.assert_allclose(dx_norm, stored["dx_norm"], rtol=1e-3)


@pytest.mark.parametrize(
    "case",
    [*(f"{kind}_{size}" for kind in ("sea", "axial_deeplab") for size in SIZES), "mixformer_train_8x14x14"],
)
def test_equals_the_authors_code_in_training(case):
    config, state_dict, stored = load(case)
    y, grads, dx_norm = run(build(config, state_dict), config, train=True)
    np.testing.assert_allclose(y.mean((0, 1, 2)), stored["train_y_mean"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(np.sqrt(np.square(y).mean((0, 1, 2))), stored["train_y_rms"], rtol=1e-3)
    check_norms(grads, stored["param_names"], stored["train_grad_norms"])
    np.testing.assert_allclose(dx_norm, stored["train_dx_norm"], rtol=1e-3)
