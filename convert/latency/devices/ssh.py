"""Boards over ssh: any Linux machine that gives a shell without asking for a password."""

import io
import pathlib
import shlex
import shutil
import tarfile

from convert.latency.devices.adb import call
from convert.latency.devices.base import DeviceError

# Fail instead of asking for a password or waiting for a board that is switched off.
_OPTIONS = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=10")


class Ssh:
    """See `remote.Transport`."""

    folder = ".cache/seaformer_jax"  # Below the home folder.

    def __init__(self, address: str):
        if shutil.which("ssh") is None:
            raise DeviceError(
                "ssh is not on this machine; install OpenSSH (Debian: apt-get install openssh-client)"
            )
        if address.startswith("-"):  # ssh would read it as an option.
            raise DeviceError(f"--device ssh:{address}: expected USER@HOST")
        self.address = address
        self.name = f"ssh:{address}"
        self.shell("true")  # Raises DeviceError if the board cannot be reached.

    def shell(self, command: str) -> str:
        return self._ssh(command).decode()

    def push(self, files: list[pathlib.Path], folder: str) -> None:
        # One archive over the shell's standard input: one connection for all files, and no scp or sftp is needed.
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for file in files:
                tar.add(file, file.name)
        self._ssh(f"tar -x -f - -C {shlex.quote(folder)}", archive.getvalue())

    def pull(self, path: str, to: pathlib.Path) -> None:
        to.write_bytes(self._ssh(f"cat {shlex.quote(path)}"))

    def _ssh(self, command: str, stdin: bytes | None = b"") -> bytes:
        return call(["ssh", *_OPTIONS, "--", self.address, command], self.name, stdin)
