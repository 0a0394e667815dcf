"""A device without our Python: the ExecuTorch runner is pushed, pinned and asked to run bundles."""

import hashlib
import json
import pathlib
import shlex
import tempfile
from typing import Any, Protocol

import numpy as np

from convert.bundle import Bundle
from convert.latency.devices import probe, toolchain
from convert.latency.devices.base import DeviceError, Samples, Schedule, choose_cores, timed_schedule
from convert.latency.on_device.runner_input import RunnerInput

# Free space to ask for: a multiple of what is pushed, since folders and blocks take some, and room for the output.
_SPARE, _OUTPUT_KB = 1.1, 16384


class Transport(Protocol):
    """The way to a device. Its methods raise DeviceError with one clear line.

    Attributes:
        name: as on the command line, with the serial number where it was left out.
        folder: where files may be put and run.
    """

    name: str
    folder: str

    def shell(self, command: str) -> str:
        """Runs a command of /bin/sh there and returns what it prints."""
        ...

    def push(self, files: list[pathlib.Path], folder: str) -> None:
        """Copies files into a folder that is there; permissions stay."""
        ...

    def pull(self, path: str, to: pathlib.Path) -> None:
        """Copies a file from there to here."""
        ...


class Remote:
    """See `base.Device`. Expects the runner in build/arm/runner, or built for another system the same way."""

    unit = "ms"

    def __init__(self, transport: Transport, threads: int):
        self.transport, self.name = transport, transport.name
        runner = toolchain.BUILD / "runner"
        if not (runner / "runner.json").exists():
            raise DeviceError(f"there is no runner in {runner}; build it with `make arm-setup`")
        self._runner = json.loads((runner / "runner.json").read_text())
        self._facts = probe.facts(transport.shell)
        self.cores = choose_cores(self._facts.pop("max_khz"), threads)
        if self._facts["abi"] != self._runner["abi"]:
            raise DeviceError(
                f"{self.name} is {self._facts['abi'] or 'of an unknown ABI'}; the runner is for {self._runner['abi']}"
            )
        self._home = self.push(sorted(runner.iterdir()))

    def facts(self) -> dict[str, Any]:
        return {**self._facts, "cores": self.cores}

    def condition(self) -> dict[str, Any]:
        return probe.condition(self.transport.shell, self.cores)

    def schedule(self, runs: int) -> Schedule:
        return timed_schedule(runs)

    def job(self, bundle: Bundle) -> "RemoteJob":
        if bundle.format != self._runner["format"]:
            raise DeviceError(
                f"{bundle.folder} is an {bundle.format} bundle and {self.name} runs {self._runner['format']}; "
                f"export it with --format {self._runner['format']}"
            )
        return RemoteJob(self, bundle)

    def push(self, files: list[pathlib.Path]) -> str:
        """Brings files into a folder named after their contents, once, and returns the folder."""
        folder = f"{self.transport.folder}/{_digest(files)}"
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

    def run(self, arguments: list[str]) -> str:
        """Runs the runner, pinned, and returns what it prints."""
        mask = sum(1 << core for core in self.cores)  # Android's taskset knows no core lists.
        command = " ".join(map(shlex.quote, [*self._runner["start"], *arguments]))
        return self.transport.shell(f"cd {self._home} && taskset {mask:x} {command}")


class RemoteJob:
    """A runner process per round. See `base.Job`."""

    def __init__(self, device: Remote, bundle: Bundle):
        self._device = device
        self._folder = tempfile.TemporaryDirectory()
        self._here = pathlib.Path(self._folder.name)
        self._given = RunnerInput(bundle)
        self._there = f"../{device.push(self._given.write(self._here)).rpartition('/')[2]}"
        self._peak_kb = 0

    def measure(self, warmup: int, runs: int) -> Samples:
        arguments = self._given.arguments(self._there, len(self._device.cores), warmup, runs)
        told = json.loads(self._device.run(arguments))
        self._peak_kb = max(self._peak_kb, told.pop("peak_kb"))
        return {step: [ns / 1e6 for ns in values] for step, values in told.items()}

    def output(self) -> np.ndarray:
        name = f"{self._device.transport.folder}/{self._there[3:]}/output.f32"
        self._device.transport.pull(name, self._here / "output.f32")
        return self._given.output(self._here / "output.f32")

    def peak_bytes(self) -> int:
        return 1024 * self._peak_kb

    def close(self) -> None:
        self._folder.cleanup()


def _digest(files: list[pathlib.Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name} {file.stat().st_size} ".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _free_kb(listing: str) -> int:
    """The free space in what `df -k` prints: the fourth column, counted from the mount point at its end."""
    try:
        return int(listing.split()[-3])
    except (IndexError, ValueError) as error:
        raise DeviceError(f"cannot read the free space from {listing.strip()!r}") from error
