"""The PyTorch mirror of every attention module, with its weights from JAX: values, training mode, and exports."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from convert import weights
from convert.torch_attention import bare
from experiments.golden_vectors import fill
from seaformer_jax.models import attention

SIZES = [(13, 10), (14, 21)]  # One that windows of 7 do not divide, and one that they do.


def both(kind: str, heads: int, size: tuple[int, int]) -> tuple[nnx.Module, torch.nn.Module]:
    """Returns the module in JAX and in PyTorch, with the same weights."""
    ours = attention.create(kind, 48, heads, size=size)
    weights.from_torch(ours, fill({name: value.shape for name, value in weights.to_torch(ours).items()}))
    theirs = bare.create(kind, 48, heads, size)
    found = weights.to_torch(ours)
    expected = {name for name in theirs.state_dict() if not name.endswith("num_batches_tracked")}
    assert found.keys() == expected
    theirs.load_state_dict({name: torch.tensor(value) for name, value in found.items()})
    return ours, theirs


def maps(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((3, *size, 48)).astype(np.float32)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", attention.KINDS)
def test_equals_the_jax_module(kind, size):
    ours, theirs = both(kind, 3, size)
    x = maps(size)
    with torch.no_grad():
        expected = theirs.eval()(torch.from_numpy(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    graphdef, state = nnx.split(ours)
    found = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x, train=False))(state, x)
    np.testing.assert_allclose(np.asarray(found), expected, rtol=0, atol=3e-5)


@pytest.mark.parametrize("kind", ["mixformer", "axial_deeplab"])
def test_statistics_equal_in_training(kind):
    ours, theirs = both(kind, 3, (8, 9))
    x = maps((8, 9))
    with torch.no_grad():
        expected = theirs.train()(torch.from_numpy(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    found = np.asarray(ours(jnp.asarray(x), train=True))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)
    state = {name: value.numpy() for name, value in theirs.state_dict().items()}
    for name, value in weights.to_torch(ours).items():
        if ".running_" in name:
            np.testing.assert_allclose(value, state[name], rtol=1e-4, atol=1e-5, err_msg=name)
