"""A file system of a few megabytes, to run out of space on."""

import pathlib
import subprocess

import pytest


class SmallDisk:
    """A file system of 8 MB at `folder`; the test is skipped where it may not be mounted."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        folder.mkdir()
        self._mount("-t", "tmpfs", "-o", "size=8m")

    def _mount(self, *options: str) -> None:
        if subprocess.run(["mount", *options, "tmpfs", self.folder], capture_output=True).returncode:
            pytest.skip("this system does not let tests mount a file system")

    def fill(self, room: int = 0) -> None:
        """Writes a file, as another process may, until there is no room but for `room` bytes."""
        with self._filler.open("wb", buffering=0) as file:
            with pytest.raises(OSError, match="No space left"):
                while True:
                    file.write(bytes(2**12))
            file.truncate(file.tell() - room)

    def make_room(self) -> None:
        self._filler.unlink()

    @property
    def _filler(self) -> pathlib.Path:
        return self.folder / "filler"

    def make_read_only(self) -> None:
        self._mount("-o", "remount,ro")

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", self.folder], check=True)
