"""Fixtures of the training tests."""

import pathlib

import pytest


@pytest.fixture(scope="session")
def compile_cache(pytestconfig) -> pathlib.Path:
    """What the subprocesses compile, kept from one test run to the next."""
    return pytestconfig.cache.mkdir("xla")
