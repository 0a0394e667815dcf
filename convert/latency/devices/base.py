"""What the latency command asks of a device."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from convert.bundle import Bundle
from seaformer_jax.errors import UserError

STEPS = ("pre", "network", "post", "together")

Samples = dict[str, list[float]]  # one value per run for each of STEPS, in the device's unit


class DeviceError(UserError):
    """A device that is missing or cannot be used; the command ends with status 3."""


class Schedule(NamedTuple):
    """Several bundles are measured in turns: in every round each makes `warmup` runs and then `runs` counted ones."""

    rounds: int
    warmup: int
    runs: int


class Job(Protocol):
    """A bundle on a device."""

    def measure(self, warmup: int, runs: int) -> Samples:
        """Runs the bundle and returns the counted runs."""
        ...

    def output(self) -> np.ndarray:
        """What the network computed there of the bundle's reference input, laid out like the expected output."""
        ...

    def peak_bytes(self) -> int | None:
        """Largest resident memory of the process that ran it; None where that says nothing."""
        ...

    def close(self) -> None:
        """Ends what `Device.job` started."""
        ...


class Device(Protocol):
    """Attributes:
    name: as on the command line.
    unit: "ms", or "M instructions".
    """

    name: str
    unit: str

    def facts(self) -> dict[str, Any]:
        """Processor, cores used, kernel, versions: what a reader of the figures has to know."""
        ...

    def condition(self) -> dict[str, Any]:
        """Governor, frequency limits and temperatures now; {} where there are none."""
        ...

    def schedule(self, runs: int) -> Schedule:
        """How to make at least `runs` runs of each bundle."""
        ...

    def job(self, bundle: Bundle) -> Job:
        """Brings the bundle there and makes it ready to run."""
        ...


def timed_schedule(runs: int, rounds: int = 10, warmup: int = 5) -> Schedule:
    """For devices with a clock: rounds of a few runs, each warmed up, since the others ran in between."""
    return Schedule(rounds, warmup, -(-runs // rounds))


def choose_cores(max_khz: Mapping[int, int], threads: int) -> list[int]:
    """Returns the fastest `threads` cores of {core: highest frequency in kHz}.

    Among equals the last: phones number their big cores last, and core 0 serves interrupts.

    Raises:
        DeviceError: there are fewer cores than threads.
    """
    if threads > len(max_khz):
        raise DeviceError(f"--threads {threads}, but the device lets us use {len(max_khz)} cores")
    return sorted(sorted(max_khz, key=lambda core: (max_khz[core], core))[-threads:])
