"""Bundles on a device: taking turns, parity in the same run, the device's condition around it."""

import contextlib
import datetime
from collections.abc import Sequence
from typing import Any

import numpy as np

from convert.bundle import Bundle
from convert.devices.base import STEPS, Device, Job, Samples
from seaformer_jax.errors import UserError

# Largest difference of the output from the one at export, as a fraction of the largest logit. In fp32 it is order
# of summation; int8 and fp16 kernels round differently on each instruction set.
TOLERANCE = {"fp32": 1e-4, "fp16": 5e-2, "int8": 1e-1}


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
                "parity": parity(job.output(), bundle.reference()[1], bundle.output, bundle.precision),
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


def parity(found: np.ndarray, expected: np.ndarray, output: str, precision: str) -> dict[str, Any]:
    """Compares outputs, channels last.

    Returns:
        difference: largest one as a fraction of the largest expected magnitude (of labels: 1 where they differ).
        agreement: fraction of equal classes.
        ok: whether the difference is within TOLERANCE (of labels: all but 1 in 1000 agree).
    """
    if found.shape != expected.shape:
        raise UserError(f"output of shape {found.shape}; expected {expected.shape}; export the bundle anew")
    if output == "labels":
        agreement = float((found == expected).mean())
        return {"difference": float(agreement < 1), "agreement": agreement, "ok": agreement >= 0.999}
    difference = float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))
    agreement = float((found.argmax(-1) == expected.argmax(-1)).mean())
    return {"difference": difference, "agreement": agreement, "ok": difference <= TOLERANCE[precision]}


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
