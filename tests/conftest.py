"""What holds for all tests."""

import jax
import pytest
import torch

from seaformer_jax.data.classification import sources
from seaformer_jax.models.variants import VARIANTS

# The models here are small: with a thread per core PyTorch spends its time waking them.
torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="module")
def quick_compilation(request):
    """Tests compile more than they compute; only those of the models see the programs that users get."""
    quick = "models" not in request.path.parts
    jax.config.update("jax_disable_most_optimizations", quick)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(autouse=True, scope="module")
def registries_stay_as_they_are():
    """The recipe of `training/nano.py` registers a model and a source of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "_SOURCES", dict(sources._SOURCES))
        before = dict(VARIANTS)
        yield
        VARIANTS.clear()
        VARIANTS.update(before)
