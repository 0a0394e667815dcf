"""An emulated ARM core that counts instructions. The counts are repeatable and equal on every machine.

QEMU runs the aarch64 runtimes themselves, in the runners that phones and boards get (runners.py). Our plugin
(on_device/count.c) counts the instructions between marks.

A count ignores caches, memory bandwidth and instructions per cycle. Use it to compare programs, not to predict times.
"""

import pathlib
import subprocess
import tempfile
from typing import Any

import numpy as np

from convert.bundle import Bundle
from convert.latency.devices import runners, toolchain
from convert.latency.devices.base import STEPS, DeviceError, Samples, Schedule
from convert.latency.on_device.runner_input import RunnerInput

_MARKS = (1, 2, 3, 4)  # Begin, pre-processing done, network done, end; see on_device/count.c.


class Qemu:
    """An emulated ARM core. See `base.Device`."""

    name, unit = "qemu", "M instructions"

    def __init__(self, threads: int):
        if threads != 1:
            raise DeviceError(
                f"--threads {threads}: --device qemu counts one thread; its counters are not atomic"
            )
        if not (toolchain.BUILD / "count.so").exists():
            raise DeviceError(f"there is no emulator in {toolchain.BUILD}; build it with `make arm-setup`")

    def facts(self) -> dict[str, Any]:
        version = _run([*emulator()[:1], "--version"]).splitlines()[0]
        return {"abi": "aarch64", "cpu": toolchain.CPU, "emulator": version, "cores": [0]}

    def condition(self) -> dict[str, Any]:
        return {}

    def schedule(self, runs: int) -> Schedule:
        # Few runs suffice: counts of one binary differ by less than 0.2 %.
        return Schedule(rounds=1, warmup=2, runs=3)

    def check(self, bundle: Bundle) -> None:
        runners.check(bundle, self.name)

    def job(self, bundle: Bundle) -> "QemuJob":
        return QemuJob(bundle)


class QemuJob:
    """A bundle that is run by a new emulated process in every round. See `base.Job`.

    Attributes:
        folder: The folder of the runner's files.
    """

    def __init__(self, bundle: Bundle):
        self._bundle = bundle
        self._temporary = tempfile.TemporaryDirectory()
        self.folder = pathlib.Path(self._temporary.name)
        self._input = RunnerInput(bundle)
        # The runner finds its files in one folder. Those of the model are linked, not copied.
        for path in self._input.write(self.folder):
            if path.parent != self.folder:
                (self.folder / path.name).symlink_to(path.resolve())

    def measure(self, warmup: int, runs: int) -> Samples:
        log, kind = self.folder / "marks", self._bundle.format
        arguments = self._input.arguments(str(self.folder), 1, warmup, runs, counting=True)
        _run([*emulator(log), *runners.card(kind)["start"], *arguments], runners.folder(kind))
        return read_marks(log.read_text(), warmup)

    def output(self) -> np.ndarray:
        return self._input.output(self.folder / "output")

    def peak_bytes(self) -> None:
        return None  # Mostly the emulator's own memory.

    def close(self) -> None:
        self._temporary.cleanup()


def read_marks(log: str, warmup: int) -> Samples:
    """Returns the millions of instructions of every step of every run.

    Args:
        log: The plugin's log: one line per mark, "tag instructions simd memory".
        warmup: Number of runs at the start that are left out.

    Raises:
        DeviceError: The marks are not in the order of `_MARKS`.
    """
    samples: Samples = {step: [] for step in STEPS}
    marks = [tuple(map(int, line.split()[:2])) for line in log.splitlines()]
    # Four marks a run; the counts in the log go on from the start of the program.
    for first in range(4 * warmup, len(marks), 4):
        tags, counts = zip(*marks[first : first + 4], strict=True)
        if tags != _MARKS:
            raise DeviceError(f"the emulated program set the marks {tags}; expected {_MARKS}")
        begin, prepared, done, end = counts
        spans = prepared - begin, done - prepared, end - done, end - begin
        for step, span in zip(STEPS, spans, strict=True):
            samples[step].append(span / 1e6)
    return samples


def emulator(log: pathlib.Path | None = None) -> list[Any]:
    """Returns the command of the emulator, with the counting plugin if `log` names a file for its marks."""
    counting = ["-plugin", f"{toolchain.BUILD / 'count.so'},log={log}"] if log else []
    # LD_LIBRARY_PATH is for the emulator itself and is unset (-U) for the emulated program.
    options = ["-cpu", toolchain.CPU, "-L", toolchain.BUILD / "root", "-U", "LD_LIBRARY_PATH"]
    return [toolchain.BUILD / "host/usr/bin/qemu-aarch64", *options, *counting]


def _run(command: list[Any], folder: pathlib.Path | None = None) -> str:
    """Runs a command in `folder`, by default the current one, and returns what it prints."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=folder, env=toolchain.environment(), capture_output=True, text=True)
    if done.returncode:
        errors = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise DeviceError(f"the emulated program failed: {errors[-1]}")
    return done.stdout
