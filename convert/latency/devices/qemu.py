"""An emulated ARM core that counts instructions: a repeatable cost, the same on every machine, and no time.

QEMU runs the aarch64 runtimes themselves (the wheels of ONNX Runtime, LiteRT and ncnn below an arm64 Python; the
cross-compiled runner for ExecuTorch), and our plugin (arm/count.c) counts what they execute between marks. The
count knows no cache, no memory bandwidth and no instructions per cycle: it compares, it does not predict times.
"""

import json
import pathlib
import subprocess
import tempfile
from typing import Any

import numpy as np

from convert.bundle import Bundle
from convert.latency.devices import toolchain
from convert.latency.devices.base import STEPS, DeviceError, Samples, Schedule
from convert.latency.on_device.runner_input import RunnerInput

_REPOSITORY = pathlib.Path(__file__).parents[3]
_RUNNER = toolchain.BUILD / "runner"
_MARKS = (1, 2, 3, 4)  # begin, prepared, network done, end; see arm/count.c


class Qemu:
    """See `base.Device`."""

    name, unit = "qemu", "M instructions"

    def __init__(self, threads: int):
        if threads != 1:
            raise DeviceError(
                f"--threads {threads}: --device qemu counts one thread; its counters are not atomic"
            )
        if not (toolchain.BUILD / "count.so").exists():
            raise DeviceError(f"there is no emulator in {toolchain.BUILD}; build it with `make arm-setup`")

    def facts(self) -> dict[str, Any]:
        version = _run([*_emulator()[:1], "--version"], _REPOSITORY).splitlines()[0]
        return {"abi": "aarch64", "cpu": toolchain.CPU, "emulator": version, "cores": [0]}

    def condition(self) -> dict[str, Any]:
        return {}

    def schedule(self, runs: int) -> Schedule:
        return Schedule(rounds=1, warmup=2, runs=3)  # Counts of one binary differ by less than 0.2 %.

    def job(self, bundle: Bundle) -> "QemuJob":
        return QemuJob(bundle)


class QemuJob:
    """An emulated process per round. See `base.Job`."""

    def __init__(self, bundle: Bundle):
        self._bundle = bundle
        self._folder = tempfile.TemporaryDirectory()
        self._here = pathlib.Path(self._folder.name)

    def measure(self, warmup: int, runs: int) -> Samples:
        log = self._here / "marks"
        if self._bundle.format == "executorch":
            given = RunnerInput(self._bundle)
            given.write(self._here)
            (self._here / self._bundle.model.name).unlink(missing_ok=True)
            (self._here / self._bundle.model.name).symlink_to(self._bundle.model.resolve())
            program = json.loads((_RUNNER / "runner.json").read_text())["start"]
            arguments = given.arguments(str(self._here), 1, warmup, runs, counting=True)
            _run([*_emulator(log), *program, *arguments], _RUNNER)
        else:
            requests = f"count {warmup} {runs}\noutput {self._here / 'output.npy'}\n"
            program = [toolchain.BUILD / "root/usr/bin/python3.11", "-m", "convert.latency.on_device.worker"]
            _run([*_emulator(log), *program, self._bundle.folder.resolve(), "1"], _REPOSITORY, requests)
        return read_marks(log.read_text(), warmup)

    def output(self) -> np.ndarray:
        if self._bundle.format == "executorch":
            return RunnerInput(self._bundle).output(self._here / "output.f32")
        return np.load(self._here / "output.npy")

    def peak_bytes(self) -> None:
        return None  # Mostly the emulator's own memory.

    def close(self) -> None:
        self._folder.cleanup()


def read_marks(log: str, warmup: int) -> Samples:
    """Returns millions of instructions of every run and step from the lines of arm/count.c."""
    samples: Samples = {step: [] for step in STEPS}
    marks = [tuple(map(int, line.split()[:2])) for line in log.splitlines()]
    for first in range(4 * warmup, len(marks), 4):
        tags, counts = zip(*marks[first : first + 4], strict=True)
        if tags != _MARKS:
            raise DeviceError(f"the emulated program set the marks {tags}; expected {_MARKS}")
        begin, prepared, done, end = counts
        spans = prepared - begin, done - prepared, end - done, end - begin
        for step, span in zip(STEPS, spans, strict=True):
            samples[step].append(span / 1e6)
    return samples


def _emulator(log: pathlib.Path | None = None) -> list[Any]:
    """The command of the emulator; with the counting plugin where there is a file for its marks."""
    counting = ["-plugin", f"{toolchain.BUILD / 'count.so'},log={log}"] if log else []
    guest = {
        "PATH": toolchain.BUILD / "bin",  # Its `cc` compiles for ARM.
        "PYTHONPATH": f"{toolchain.BUILD / 'site'}:{_REPOSITORY}",
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
    }
    variables = [word for name, value in guest.items() for word in ("-E", f"{name}={value}")]
    options = ["-cpu", toolchain.CPU, "-L", toolchain.BUILD / "root", "-U", "LD_LIBRARY_PATH", *variables]
    return [toolchain.BUILD / "host/usr/bin/qemu-aarch64", *options, *counting]


def _run(command: list[Any], folder: pathlib.Path, given: str = "") -> str:
    words = [str(word) for word in command]
    done = subprocess.run(
        words, input=given, cwd=folder, env=toolchain.environment(), capture_output=True, text=True
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise DeviceError(f"the emulated program failed: {said[-1]}")
    return done.stdout
