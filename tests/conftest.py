"""What holds for all tests: how they compile, in which order they start, and what they leave as it was."""

import gc
import os
import pathlib

# XLA reads its flags once, before the first device is used. Without these emitters it compiles what is not optimised
# in half the time, and most tests compile more than they compute.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false".strip()

import jax
import pytest
import torch

from convert import torch_model
from seaformer_jax.data.classification import sources
from seaformer_jax.models.variants import VARIANTS

# By CPU seconds, as `--cpu-seconds` measures them.
SLOWEST_FIRST = [
    "commands/test_end_to_end.py",
    "training/test_parallel.py",
    "training/test_resume.py",
    "commands/test_wrong_input.py",
    "models/test_golden_segmentation.py",
    "models/attention/test_adaptive_squeeze.py",
    "models/test_golden.py",
    "convert/export/test_export.py",
    "training/test_distillation_runs.py",
    "tasks/test_distillation.py",
    "convert/test_commands.py",
    "data/test_pipeline.py",
    "tasks/test_segmentation_task.py",
    "convert/test_adaptive_weights.py",
    "convert/test_weights.py",
    "data/segmentation/test_batches.py",
]
pytest_plugins = ["tests.buckets", "tests.cpu_seconds"]
# The models here are small: with a thread per core PyTorch spends its time waking them.
torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    """Gives all processes of a test run one compilation cache, which stays for the next run."""
    jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("xla")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def pytest_collection_finish() -> None:
    """Keeps the garbage collector from walking over the imported libraries, which took 15 % of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Starts the slowest files first: one that starts last keeps a single worker busy while the others wait."""
    folder = pathlib.Path(__file__).parent

    def place(item: pytest.Item) -> int:
        name = item.path.relative_to(folder).as_posix()
        return SLOWEST_FIRST.index(name) if name in SLOWEST_FIRST else len(SLOWEST_FIRST)

    items.sort(key=place)


@pytest.fixture(autouse=True, scope="module")
def quick_compilation():
    """Programs are compiled without optimisation, except in tests that ask for `optimized`."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def compile_cache(pytestconfig: pytest.Config) -> str:
    """Returns the folder of the compilation cache, for commands that the tests start."""
    return str(pytestconfig.cache.mkdir("xla"))


@pytest.fixture(autouse=True, scope="module")
def registries_stay_as_they_are():
    """Takes out the models and sources that the tests register."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "_SOURCES", dict(sources._SOURCES))
        known = [(registry, dict(registry)) for registry in (VARIANTS, torch_model.VARIANTS)]
        yield
        for registry, before in known:
            registry.clear()
            registry.update(before)
