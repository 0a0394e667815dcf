"""Fixtures: buckets of emulators, for this process and for the commands that it starts."""

import contextlib
import functools
import importlib.util
import os
from collections.abc import Callable, Iterator

import pytest

from experiments.storage import emulators
from seaformer_jax import paths


@pytest.fixture(scope="session")
def open_bucket() -> Iterator[Callable[[str], str]]:
    """A function from "gs" or "s3" to a bucket of an emulator, which this process uses from then on."""
    with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as patch:

        @functools.cache
        def opened(scheme: str) -> str:
            port = stack.enter_context(emulators.emulator(scheme))
            for name, value in emulators.variables(scheme, port).items():
                patch.setenv(name, value)
            emulators.make_bucket(scheme, port, "bucket")
            return os.fspath(paths.of(f"{scheme}://bucket"))  # Every user's path passes through `of` first.

        def checked(scheme: str) -> str:
            missing = [name for name in emulators.PACKAGES[scheme] if importlib.util.find_spec(name) is None]
            if missing:
                pytest.skip(f"{scheme}:// needs {' and '.join(missing)}: pip install 'seaformer-jax[test]'")
            return opened(scheme)

        yield checked


@pytest.fixture(params=["gs", "s3"])
def bucket(request: pytest.FixtureRequest, open_bucket: Callable[[str], str]) -> str:
    """`gs://bucket` and `s3://bucket`."""
    return open_bucket(request.param)
