"""Measures on this machine: every bundle runs in its own process, pinned to the fastest cores."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np

from convert.bundle import Bundle
from convert.latency.devices import probe
from convert.latency.devices.base import DeviceError, Samples, Schedule, choose_cores, timed_schedule
from convert.runtimes import registry
from seaformer_jax.errors import UserError

_REPOSITORY = pathlib.Path(__file__).parents[3]
# Thread pools of numeric libraries; each library reads its variable when it is loaded.
_POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Host:
    """This machine. See `base.Device`."""

    name, unit = "host", "ms"

    def __init__(self, threads: int):
        self.threads = threads
        self._facts = probe.facts(shell)
        self.cores = choose_cores(self._facts.pop("max_khz"), threads)

    def facts(self) -> dict[str, Any]:
        return {**self._facts, "cores": self.cores}

    def condition(self) -> dict[str, Any]:
        return probe.condition(shell, self.cores)

    def schedule(self, runs: int) -> Schedule:
        return timed_schedule(runs)

    def check(self, bundle: Bundle) -> None:
        try:  # What else a runtime lacks, the bundle's process tells.
            registry.check(bundle)
        except UserError as error:
            raise DeviceError(str(error)) from error

    def job(self, bundle: Bundle) -> "HostJob":
        return HostJob(bundle, self.cores)


class HostJob:
    """A worker process (on_device/worker.py) that runs one bundle on request. See `base.Job`."""

    def __init__(self, bundle: Bundle, cores: list[int]):
        self._bundle = bundle
        self._folder = tempfile.TemporaryDirectory()
        # Errors go to a file: a pipe that nobody reads would fill up and block the worker.
        self._errors = pathlib.Path(self._folder.name) / "errors"
        command = [
            sys.executable,
            "-m",
            "convert.latency.on_device.worker",
            str(bundle.folder.resolve()),
            str(len(cores)),
        ]
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                command,
                cwd=_REPOSITORY,
                env=os.environ | dict.fromkeys(_POOLS, str(len(cores))),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        # The worker's later threads, those of the runtime, inherit the cores.
        os.sched_setaffinity(self._process.pid, cores)
        self._ask("")  # The worker prints its first line when the model is loaded.

    def measure(self, warmup: int, runs: int) -> Samples:
        samples = self._ask(f"measure {warmup} {runs}")
        return {step: [ns / 1e6 for ns in values] for step, values in samples.items()}

    def output(self) -> np.ndarray:
        path = f"{self._folder.name}/output.npy"
        self._ask(f"output {path}")
        return np.load(path)

    def peak_bytes(self) -> int:
        return self._ask("peak")

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # The worker died before it read everything.
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._folder.cleanup()

    def _ask(self, request: str) -> Any:
        """Sends a request, unless it is "", and returns the worker's next answer."""
        try:
            if request:
                print(request, file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:  # The worker has ended. Its last line of errors says why.
            self._process.wait()
            errors = self._errors.read_text().strip().splitlines() or [
                f"exit status {self._process.returncode}"
            ]
            raise DeviceError(f"{self._bundle.folder} does not run on this machine: {errors[-1]}")
        return json.loads(answer)


def shell(command: str) -> str:
    """Runs a command of /bin/sh on this machine and returns what it prints."""
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True).stdout
