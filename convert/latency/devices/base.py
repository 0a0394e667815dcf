"""The interface of a device that bundles are measured on, and helpers that devices share."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from convert.bundle import Bundle
from seaformer_jax.errors import UserError

# Pre-processing, network, post-processing, and the whole run.
STEPS = ("pre", "network", "post", "together")

Samples = dict[str, list[float]]  # For each of STEPS one value per run, in the device's unit.


class DeviceError(UserError):
    """The device is missing or cannot be used."""

    exit_status = 3


class Schedule(NamedTuple):
    """How bundles are measured in turns.

    Attributes:
        rounds: Number of rounds; every round measures all bundles, one after the other.
        warmup: Runs of a bundle at the start of its turn that are not measured.
        runs: Measured runs of a bundle in every round.
    """

    rounds: int
    warmup: int
    runs: int


class Job(Protocol):
    """A bundle on a device, ready to run."""

    def measure(self, warmup: int, runs: int) -> Samples:
        """Runs the bundle `warmup` + `runs` times and returns the samples of the last `runs` runs."""
        ...

    def output(self) -> np.ndarray:
        """Returns the device's output for the reference input, in the layout of the expected output."""
        ...

    def peak_bytes(self) -> int | None:
        """Returns the peak resident memory of the bundle's process; None if that is not the bundle's own memory."""
        ...

    def close(self) -> None:
        """Stops the processes and removes the files that `Device.job` made on this machine."""
        ...


class Device(Protocol):
    """A machine, real or emulated, that runs bundles.

    Attributes:
        name: Name of the device, as on the command line.
        unit: Unit of the samples: "ms" or "M instructions".
    """

    name: str
    unit: str

    def facts(self) -> dict[str, Any]:
        """Returns what a reader of the figures has to know: processor, cores used, kernel, versions."""
        ...

    def condition(self) -> dict[str, Any]:
        """Returns the current governor, frequency limits and temperatures; {} if the device has none."""
        ...

    def schedule(self, runs: int) -> Schedule:
        """Returns how to make at least `runs` measured runs of each bundle; fewer if samples hardly vary."""
        ...

    def check(self, bundle: Bundle) -> None:
        """Checks that the device can run the bundle, before anything is brought to it.

        Raises:
            DeviceError: It cannot.
        """
        ...

    def job(self, bundle: Bundle) -> Job:
        """Brings a bundle that has been checked to the device and makes it ready to run."""
        ...


def timed_schedule(runs: int, rounds: int = 10, warmup: int = 5) -> Schedule:
    """Returns a schedule of at least `runs` measured runs of each bundle, for devices that measure time.

    A turn has only a few runs and starts with a warm-up, because other bundles ran since the last turn.
    """
    return Schedule(rounds, warmup, -(-runs // rounds))


def choose_cores(max_khz: Mapping[int, int], threads: int) -> list[int]:
    """Returns the numbers of the fastest `threads` cores, in rising order.

    Ties go to the highest number, because phones number their big cores last and core 0 serves interrupts.

    Args:
        max_khz: Core -> its highest frequency in kHz.
        threads: Number of cores to choose.

    Raises:
        DeviceError: There are fewer cores than threads.
    """
    if threads > len(max_khz):
        raise DeviceError(f"--threads {threads}, but only {len(max_khz)} cores of the device may be used")
    return sorted(sorted(max_khz, key=lambda core: (max_khz[core], core))[-threads:])
