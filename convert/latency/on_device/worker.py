"""Runs one bundle in its own process, for the devices "host" and "qemu", and answers requests.

    python -m convert.latency.on_device.worker BUNDLE THREADS

Prints a line of JSON when the model is loaded, and one line for each request on its standard input:

- "measure WARMUP RUNS": the nanoseconds of every step of every run;
- "count WARMUP RUNS": sets marks for the counting plugin (count.c) instead of reading the clock;
- "output FILE.npy": writes the network's output for the reference input;
- "peak": the largest resident memory of this process, in bytes.

Imports only NumPy, the bundle's runtime and their dependencies, because the emulator has neither PyTorch nor JAX.
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

MARKS = -77  # A file descriptor that no process has; the plugin in count.c watches it.


def main(folder: str, threads: str) -> None:
    # Runtimes print as well, from Python and from C++, and the pipe is for answers only.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    bundle = Bundle.open(pathlib.Path(folder))
    pipeline = ImagePipeline(bundle, int(threads))
    image = pipeline.image()
    print("true", file=answers, flush=True)  # The model is loaded.
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
    pipeline: ImagePipeline, image: np.ndarray, warmup: int, runs: int, clock: Callable[[], int]
) -> Samples:
    """Runs the pipeline and returns the duration of every step, in units of `clock`, without the warm-up runs."""
    samples: Samples = {step: [] for step in STEPS}
    for number in range(warmup + runs):
        began = clock()
        prepared = pipeline.prepare(image)
        ready = clock()
        output = pipeline.network(prepared)
        done = clock()
        pipeline.finish(output)
        ended = clock()
        if number >= warmup:
            spans = ready - began, done - ready, ended - done, ended - began
            for step, span in zip(STEPS, spans, strict=True):
                samples[step].append(span)
    return samples


def _peak_bytes() -> int:
    """Returns this process's peak resident memory (VmHWM) in bytes.

    `getrusage` cannot be used: its counters start with those of the process that forked this one.
    """
    status = pathlib.Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def _marker() -> Callable[[], int]:
    """Returns a function with the signature of a clock that sets the marks 1, 2, 3, 4 in turn and returns 0.

    The four marks are the bounds of the steps of one run.
    """
    number = 0

    def mark() -> int:
        nonlocal number
        number = number % 4 + 1
        with contextlib.suppress(OSError):  # The kernel rejects the write, but the plugin has seen it.
            os.write(MARKS, bytes(number))
        return 0

    return mark


if __name__ == "__main__":
    main(*sys.argv[1:])
