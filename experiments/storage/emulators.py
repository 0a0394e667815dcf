"""Emulators of Google's and Amazon's storage on loopback, and the environment in which everything uses them."""

import contextlib
import os
import pathlib
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

from experiments.forked import free_port

_REPOSITORY = pathlib.Path(__file__).parents[2]
PACKAGES = {"gs": ("gcsfs", "gcp_storage_emulator"), "s3": ("s3fs", "moto")}
_COMMANDS = {
    "gs": "experiments.storage.gcs_server {}",
    "s3": "moto.server -H 127.0.0.1 -p {}",
}


def variables(scheme: str, port: int) -> dict[str, str]:
    """The environment in which gcsfs, s3fs and tensorstore use an emulator."""
    url = f"http://127.0.0.1:{port}"
    if scheme == "gs":
        # Without the last two gcsfs asks Google what kind each bucket is, and everybody looks for a service account.
        return {
            "STORAGE_EMULATOR_HOST": url,
            "TENSORSTORE_GCS_HTTP_URL": url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            "NO_GCE_CHECK": "true",
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
    process = subprocess.Popen(command, cwd=_REPOSITORY, env=os.environ | environment, **quiet)
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


def used() -> dict[str, str]:
    """The variables by which this process uses emulators, for commands of a server that started before them."""
    names = {name for scheme in PACKAGES for name in variables(scheme, 0)}
    return {name: os.environ[name] for name in names & os.environ.keys()}
