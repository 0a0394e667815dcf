"""The campaign's commands: processes of a fork server that knows the model of `recipe.py`."""

import subprocess
from collections.abc import Sequence
from typing import NamedTuple

from experiments import forked
from experiments.campaign import recipe

_SERVER = forked.Server("experiments.campaign.server")


class Ended(NamedTuple):
    """How a command ended.

    Attributes:
        status: Exit status, negative for the signal that killed it; None if it had to be killed at the time limit.
        stdout, stderr: What it wrote.
    """

    status: int | None
    stdout: str
    stderr: str


class Command(forked.Command):
    """A command that runs, after the manner of `subprocess.Popen`."""

    def __init__(self, module: str, arguments: Sequence[object], devices: int = 1):
        """Starts `python -m module arguments` with that many CPU devices."""
        super().__init__(_SERVER, module, arguments, devices)

    def end(self, limit: float) -> Ended:
        """Waits for the end, at most `limit` seconds."""
        try:
            stdout, stderr = self.communicate(limit)
        except subprocess.TimeoutExpired as error:
            return Ended(None, error.output, error.stderr)
        return Ended(self.returncode, stdout, stderr)


def start() -> None:
    """Starts the server, before there are threads that would start one each."""
    assert _SERVER.requests


if __name__ == "__main__":
    forked.serve(recipe.register)
