"""Buckets for the tests: emulators of Google's and Amazon's storage on loopback."""

import contextlib
import functools
import importlib.util
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from experiments.forked import free_port
from seaformer_jax import paths
from tests.paths import REPOSITORY

PACKAGES = {"gs": ("gcsfs", "gcp_storage_emulator"), "s3": ("s3fs", "moto")}
_COMMANDS = {
    "gs": "tests.gcs_server {}",
    "s3": "moto.server -H 127.0.0.1 -p {}",
}


def variables(scheme: str, port: int) -> dict[str, str]:
    """The environment in which gcsfs, s3fs and tensorstore use an emulator."""
    url = f"http://127.0.0.1:{port}"
    if scheme == "gs":
        # Without the last one gcsfs asks Google what kind each bucket is.
        return {
            "STORAGE_EMULATOR_HOST": url,
            "TENSORSTORE_GCS_HTTP_URL": url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        }
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }


def make_bucket(scheme: str, port: int, name: str) -> None:
    url = f"http://127.0.0.1:{port}"
    if scheme == "gs":
        body, head = f'{{"name": "{name}"}}'.encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{url}/storage/v1/b?project=tests", body, head)
    else:
        request = urllib.request.Request(f"{url}/{name}", method="PUT")
    urllib.request.urlopen(request).close()


@contextlib.contextmanager
def emulator(scheme: str, **environment: str) -> Iterator[int]:
    """Yields the port of a new emulator."""
    port = free_port()
    command = [sys.executable, "-m", *_COMMANDS[scheme].format(port).split()]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=REPOSITORY, env=os.environ | environment, **quiet)
    try:
        _wait(port, process)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def _wait(port: int, process: subprocess.Popen) -> None:
    while process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/").close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"the emulator ended with status {process.returncode}")


@pytest.fixture(scope="session")
def open_bucket() -> Iterator[Callable[[str], str]]:
    """A function from "gs" or "s3" to a bucket of an emulator, which this process uses from then on."""
    with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as patch:

        @functools.cache
        def opened(scheme: str) -> str:
            port = stack.enter_context(emulator(scheme))
            for name, value in variables(scheme, port).items():
                patch.setenv(name, value)
            make_bucket(scheme, port, "bucket")
            return os.fspath(paths.of(f"{scheme}://bucket"))  # Every user's path passes through `of` first.

        def checked(scheme: str) -> str:
            missing = [name for name in PACKAGES[scheme] if importlib.util.find_spec(name) is None]
            if missing:
                pytest.skip(f"{scheme}:// needs {' and '.join(missing)}: pip install 'seaformer-jax[test]'")
            return opened(scheme)

        yield checked


@pytest.fixture(params=["gs", "s3"])
def bucket(request: pytest.FixtureRequest, open_bucket: Callable[[str], str]) -> str:
    """`gs://bucket` and `s3://bucket`."""
    return open_bucket(request.param)


def used() -> dict[str, str]:
    """The variables by which this process uses emulators, for commands of a server that started before them."""
    names = {name for scheme in PACKAGES for name in variables(scheme, 0)}
    return {name: os.environ[name] for name in names & os.environ.keys()}
