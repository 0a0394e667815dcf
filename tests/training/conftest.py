"""Fixtures of the training tests."""

import pathlib

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def quick_compilation():
    """These tests compile more than they compute."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def compile_cache(pytestconfig) -> pathlib.Path:
    """What the subprocesses compile, kept from one test run to the next."""
    return pytestconfig.cache.mkdir("xla")
