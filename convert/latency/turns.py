"""Measures bundles on a device in turns, checks their outputs and records the condition of the device."""

import contextlib
import datetime
from collections.abc import Sequence
from typing import Any

from convert.bundle import Bundle
from convert.export import parity
from convert.latency.devices.base import STEPS, Device, Job, Samples


def measure(device: Device, bundles: Sequence[Bundle], runs: int) -> dict[str, Any]:
    """Measures the bundles in turns and returns a report.

    Args:
        device: Device to measure on.
        bundles: Bundles to compare.
        runs: Least number of measured runs of each bundle; see `Device.schedule`.

    Returns:
        The report: "device", "unit", "date", "facts", "schedule", "condition" ("before" and "after" the measurement),
        and "bundles" with one entry per bundle, in order. An entry holds the raw samples, the peak memory and the
        comparison of the bundle's output with that at export.

    Raises:
        DeviceError: The device cannot run one of the bundles.
    """
    names = _names(bundles)
    # All of them first, so that one that cannot run is told before another is brought there.
    for bundle in bundles:
        device.check(bundle)
    schedule = device.schedule(runs)
    with contextlib.ExitStack() as stack:
        # All bundles are made ready before the first measurement, because they take turns.
        jobs = [stack.enter_context(contextlib.closing(device.job(bundle))) for bundle in bundles]
        before = device.condition()
        samples = _in_turns(jobs, schedule)
        after = device.condition()
        # The output is checked on the very jobs that were measured.
        records = [
            {
                "bundle": name,
                **{key: getattr(bundle, key) for key in ("task", "format", "precision", "output")},
                "input_size": list(bundle.input_size),
                "samples": taken,
                "peak_bytes": job.peak_bytes(),
                "parity": parity.on_device(
                    job.output(), bundle.reference()[1], bundle.output, bundle.precision
                ),
            }
            for name, bundle, job, taken in zip(names, bundles, jobs, samples, strict=True)
        ]
    return {
        "device": device.name,
        "unit": device.unit,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "facts": device.facts(),
        "schedule": schedule._asdict(),
        "condition": {"before": before, "after": after},
        "bundles": records,
    }


def _in_turns(jobs: Sequence[Job], schedule: Any) -> list[Samples]:
    """Measures all bundles in every round, so that a change of load on the device affects all of them alike."""
    samples: list[Samples] = [{step: [] for step in STEPS} for _ in jobs]
    for _ in range(schedule.rounds):
        for job, taken in zip(jobs, samples, strict=True):
            for step, values in job.measure(schedule.warmup, schedule.runs).items():
                taken[step] += values
    return samples


def _names(bundles: Sequence[Bundle]) -> list[str]:
    """Returns the names of the bundles' folders, or their paths if two names are equal."""
    names = [bundle.folder.resolve().name for bundle in bundles]
    return names if len(set(names)) == len(names) else [str(bundle.folder) for bundle in bundles]
