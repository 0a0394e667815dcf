"""Golden vectors of the official PyTorch models, for tests.

The vectors are stored beside the repository, in ../shared/golden. If they are absent, `state_dict_shapes` and `load`
skip the calling test. `fill` and `images` do not need them.
"""

import pathlib

import numpy as np
import pytest

from experiments import golden_vectors
from experiments.golden_vectors import fill, images  # noqa: F401  What tests need besides.
from tests.paths import SHARED

FOLDER = SHARED / "golden"
# Compiler options of the programs that users get; the tests compile most others in a hurry (tests/conftest.py).
AS_USERS_COMPILE = {
    "xla_backend_optimization_level": 3,
    "xla_llvm_disable_expensive_passes": False,
    "xla_cpu_use_fusion_emitters": True,
}


def require() -> pathlib.Path:
    """Returns the folder of the golden vectors; skips the calling test if it does not exist."""
    if not FOLDER.is_dir():
        pytest.skip("the golden vectors of the official models (../shared/golden) are absent")
    return FOLDER


def state_dict_shapes(name: str, subfolder: str = "") -> dict[str, tuple[int, ...]]:
    """As `golden_vectors.state_dict_shapes`."""
    return golden_vectors.state_dict_shapes(require() / subfolder, name)


def load(name: str, subfolder: str = "") -> dict[str, np.ndarray]:
    """As `golden_vectors.load`."""
    return golden_vectors.load(require() / subfolder, name)
