"""Runs one bundle in a process of its own, on request: the host's and the emulator's side of the measurement.

    python -m convert.latency.on_device.worker BUNDLE THREADS

Prints a line of JSON when the model is loaded and one for every line of its input: "measure WARMUP RUNS"
(nanoseconds of every run by step), "count WARMUP RUNS" (sets marks for arm/count.c instead of reading the clock),
"output FILE.npy" (the network's output of the reference input), "peak" (resident bytes). Imports nothing but NumPy,
the runtime of the bundle and what these two need: it also runs under emulation, where PyTorch and JAX are not.
"""

import contextlib
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from convert.bundle import Bundle
from convert.latency.devices.base import STEPS, Samples
from convert.latency.on_device.image_pipeline import ImagePipeline

MARKS = -77  # A file descriptor that no process has; arm/count.c watches it.


def main(folder: str, threads: str) -> None:
    answers = sys.stdout
    sys.stdout = sys.stderr  # The pipe is for answers; runtimes print too.
    bundle = Bundle.open(pathlib.Path(folder))
    pipeline = ImagePipeline(bundle, int(threads))
    image = pipeline.image()
    print("true", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer(line.split(), pipeline, image)), file=answers, flush=True)


def _answer(words: list[str], pipeline: ImagePipeline, image: np.ndarray) -> Any:
    match words:
        case ["measure", warmup, runs]:
            return _measure(pipeline, image, int(warmup), int(runs), time.perf_counter_ns)
        case ["count", warmup, runs]:
            return _measure(pipeline, image, int(warmup), int(runs), _marker())
        case ["output", path]:
            np.save(path, pipeline.network(pipeline.reference))
            return True
        case ["peak"]:
            return _peak_bytes()
    raise ValueError(f"unknown request {words}")


def _measure(
    pipeline: ImagePipeline, image: np.ndarray, warmup: int, runs: int, bound: Callable[[], int]
) -> Samples:
    samples: Samples = {step: [] for step in STEPS}
    for number in range(warmup + runs):
        began = bound()
        prepared = pipeline.prepare(image)
        ready = bound()
        output = pipeline.network(prepared)
        done = bound()
        pipeline.finish(output)
        ended = bound()
        if number >= warmup:
            spans = ready - began, done - ready, ended - done, ended - began
            for step, span in zip(STEPS, spans, strict=True):
                samples[step].append(span)
    return samples


def _peak_bytes() -> int:
    """Of this program: the counters of getrusage start with those of the process that forked it."""
    status = pathlib.Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def _marker() -> Callable[[], int]:
    """A clock that stands still and sets the marks 1, 2, 3, 4 in turn: the bounds of the steps of a run."""
    number = 0

    def mark() -> int:
        nonlocal number
        number = number % 4 + 1
        with contextlib.suppress(OSError):  # The kernel refuses it; the plugin has seen it.
            os.write(MARKS, bytes(number))
        return 0

    return mark


if __name__ == "__main__":
    main(*sys.argv[1:])
