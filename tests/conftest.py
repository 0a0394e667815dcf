"""What holds for all tests."""

import jax
import pytest
import torch

# The models here are small: with a thread per core PyTorch spends its time waking them.
torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="module")
def quick_compilation(request):
    """Tests compile more than they compute; only those of the models see the programs that users get."""
    quick = "models" not in request.path.parts
    jax.config.update("jax_disable_most_optimizations", quick)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
