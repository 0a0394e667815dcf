"""Runs one bundle in its own process, for the device "host", and answers requests.

    python -m convert.latency.on_device.worker BUNDLE THREADS

Prints a line of JSON when the model is loaded, and one line for each request on its standard input:

- "measure WARMUP RUNS": the nanoseconds of every step of every run;
- "output FILE.npy": writes the network's output for the reference input;
- "peak": the largest resident memory of this process, in bytes.

Imports only NumPy, the bundle's runtime and their dependencies, so that the memory is that of a program that runs the
bundle.
"""

import json
import os
import pathlib
import sys
import time
from typing import Any

import numpy as np

from convert.bundle import Bundle
from convert.latency.devices.base import STEPS, Samples
from convert.latency.on_device.image_pipeline import ImagePipeline


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
            return _measure(pipeline, image, int(warmup), int(runs))
        case ["output", path]:
            np.save(path, pipeline.network(pipeline.reference))
            return True
        case ["peak"]:
            return _peak_bytes()
    raise ValueError(f"unknown request {words}")


def _measure(pipeline: ImagePipeline, image: np.ndarray, warmup: int, runs: int) -> Samples:
    """Runs the pipeline and returns the nanoseconds of every step, without the warm-up runs."""
    samples: Samples = {step: [] for step in STEPS}
    for number in range(warmup + runs):
        began = time.perf_counter_ns()
        prepared = pipeline.prepare(image)
        ready = time.perf_counter_ns()
        output = pipeline.network(prepared)
        done = time.perf_counter_ns()
        pipeline.finish(output)
        ended = time.perf_counter_ns()
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


if __name__ == "__main__":
    main(*sys.argv[1:])
