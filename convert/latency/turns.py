"""Bundles on a device: taking turns, parity in the same run, the device's condition around it."""

import contextlib
import datetime
from collections.abc import Sequence
from typing import Any

from convert.bundle import Bundle
from convert.export import parity
from convert.latency.devices.base import STEPS, Device, Job, Samples


def measure(device: Device, bundles: Sequence[Bundle], runs: int) -> dict[str, Any]:
    """Returns a record of everything: see the keys below; `bundles` has one entry per bundle, in order.

    Raises:
        DeviceError: the device cannot run one of them.
    """
    names = _names(bundles)
    schedule = device.schedule(runs)
    with contextlib.ExitStack() as stack:
        jobs = [stack.enter_context(contextlib.closing(device.job(bundle))) for bundle in bundles]
        before = device.condition()
        samples = _in_turns(jobs, schedule)
        after = device.condition()
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
    """Every round meets all bundles, so that load on the device does too."""
    samples: list[Samples] = [{step: [] for step in STEPS} for _ in jobs]
    for _ in range(schedule.rounds):
        for job, taken in zip(jobs, samples, strict=True):
            for step, values in job.measure(schedule.warmup, schedule.runs).items():
                taken[step] += values
    return samples


def _names(bundles: Sequence[Bundle]) -> list[str]:
    """Names of the folders, or paths where these are not unique."""
    names = [bundle.folder.resolve().name for bundle in bundles]
    return names if len(set(names)) == len(names) else [str(bundle.folder) for bundle in bundles]
