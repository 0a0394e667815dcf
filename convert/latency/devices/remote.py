"""A device without Python: the runners of the runtimes are pushed to it and run the bundles, pinned to cores."""

import hashlib
import json
import pathlib
import shlex
import tempfile
from typing import Any, Protocol

import numpy as np

from convert.bundle import Bundle
from convert.latency.devices import probe, runners
from convert.latency.devices.base import DeviceError, Samples, Schedule, choose_cores, timed_schedule
from convert.latency.on_device.runner_input import RunnerInput

# The free space that a push needs: more than the size of the files, because folders and blocks take space as well,
# and room for the output.
_SPARE, _OUTPUT_KB = 1.1, 16384


class Transport(Protocol):
    """The connection to a device. All methods raise DeviceError with a message of one line.

    Attributes:
        name: Name of the device, as on the command line, with the serial number even if that was left out there.
        folder: Folder on the device in which files may be written and programs may run.
    """

    name: str
    folder: str

    def shell(self, command: str) -> str:
        """Runs a command of /bin/sh on the device and returns what it prints."""
        ...

    def push(self, files: list[pathlib.Path], folder: str) -> None:
        """Copies files into an existing folder on the device; they keep their permissions."""
        ...

    def pull(self, path: str, to: pathlib.Path) -> None:
        """Copies a file from the device to this machine."""
        ...


class Remote:
    """A device behind a `Transport`. See `base.Device`."""

    unit = "ms"

    def __init__(self, transport: Transport, threads: int):
        self.transport, self.name = transport, transport.name
        self._facts = probe.facts(transport.shell)
        self.cores = choose_cores(self._facts.pop("max_khz"), threads)

    def facts(self) -> dict[str, Any]:
        return {**self._facts, "cores": self.cores}

    def condition(self) -> dict[str, Any]:
        return probe.condition(self.transport.shell, self.cores)

    def schedule(self, runs: int) -> Schedule:
        return timed_schedule(runs)

    def check(self, bundle: Bundle) -> None:
        runners.check(bundle, self.name)
        found, needed = self._facts["abi"] or "of an unknown ABI", runners.card(bundle.format)["abi"]
        if found != needed:
            raise DeviceError(f"{self.name} is {found}; the runner is for {needed}")

    def job(self, bundle: Bundle) -> "RemoteJob":
        return RemoteJob(self, bundle)

    def push(self, files: list[pathlib.Path]) -> str:
        """Copies files into a folder on the device and returns that folder.

        The folder is named after the contents of the files, so that the same files are copied only once.

        Raises:
            DeviceError: The device has too little free space.
        """
        folder = f"{self.transport.folder}/{_digest(files)}"
        # The file "complete" is written last, so an interrupted copy is made again.
        if self.transport.shell(f"[ -e {folder}/complete ] && echo yes; true").strip() == "yes":
            return folder
        self.transport.shell(f"mkdir -p {folder}")
        needed = int(_SPARE * sum(file.stat().st_size for file in files) / 1024) + _OUTPUT_KB
        free = _free_kb(self.transport.shell(f"df -k {folder}"))
        if free < needed:
            raise DeviceError(
                f"{self.name} has no space left: {free} kB free in {self.transport.folder}, {needed} kB needed"
            )
        self.transport.push(files, folder)
        self.transport.shell(f"touch {folder}/complete")
        return folder

    def run(self, folder: str, command: list[str]) -> str:
        """Runs a command in a folder on the device, pinned to `cores`, and returns what it prints."""
        # A mask, because Android's taskset takes no list of cores.
        mask = sum(1 << core for core in self.cores)
        return self.transport.shell(f"cd {folder} && taskset {mask:x} {' '.join(map(shlex.quote, command))}")


class RemoteJob:
    """A bundle that is run by a new runner process in every round. See `base.Job`."""

    def __init__(self, device: Remote, bundle: Bundle):
        self._device = device
        self._folder = tempfile.TemporaryDirectory()
        self._local_folder = pathlib.Path(self._folder.name)
        self._runner_input = RunnerInput(bundle)
        self._start = runners.card(bundle.format)["start"]
        self._runner_folder = device.push(sorted(runners.folder(bundle.format).iterdir()))
        self._bundle_folder = device.push(self._runner_input.write(self._local_folder))
        self._peak_kb = 0

    def measure(self, warmup: int, runs: int) -> Samples:
        # Relative to the runner's folder, in which the runner is started.
        folder = f"../{self._bundle_folder.rpartition('/')[2]}"
        arguments = self._runner_input.arguments(folder, len(self._device.cores), warmup, runs)
        report = json.loads(self._device.run(self._runner_folder, [*self._start, *arguments]))
        self._peak_kb = max(self._peak_kb, report.pop("peak_kb"))
        return {step: [ns / 1e6 for ns in values] for step, values in report.items()}

    def output(self) -> np.ndarray:
        self._device.transport.pull(f"{self._bundle_folder}/output", self._local_folder / "output")
        return self._runner_input.output(self._local_folder / "output")

    def peak_bytes(self) -> int:
        return 1024 * self._peak_kb

    def close(self) -> None:
        self._folder.cleanup()


def _digest(files: list[pathlib.Path]) -> str:
    """Returns 16 hexadecimal digits that depend on the names and contents of the files."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name} {file.stat().st_size} ".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _free_kb(listing: str) -> int:
    """Returns the free space in kB from the output of `df -k`: the fourth column, two before the mount point."""
    try:
        return int(listing.split()[-3])
    except (IndexError, ValueError) as error:
        raise DeviceError(f"cannot read the free space from {listing.strip()!r}") from error
