"""The commands in the tests: processes of the fork server that know the models of `tests/toys.py`."""

import subprocess
from collections.abc import Sequence

from experiments import forked
from tests import toys

SERVER = forked.Server("tests.forked")


def cpu_seconds() -> float:
    """CPU seconds of the server's imports and of all commands that have ended."""
    return SERVER.cpu_seconds


class Command(forked.Command):
    """A command that runs, after the manner of `subprocess.Popen`."""

    def __init__(self, module: str, arguments: Sequence[object], *options: object, **more: object):
        """Starts `python -m module arguments`; the options are those of `experiments.forked.Command`."""
        super().__init__(SERVER, module, arguments, *options, **more)


def run(
    module: str, *arguments: object, devices: int = 1, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Runs `python -m module arguments` to its end."""
    command = Command(module, arguments, devices)
    outputs = command.communicate(timeout)
    return subprocess.CompletedProcess([module, *arguments], command.returncode, *outputs)


if __name__ == "__main__":
    forked.serve(toys.register)
