"""Helpers of the benchmarks: measuring sides in turn, describing the machine, writing tables and result files."""

import multiprocessing
import os
import pathlib
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from seaformer_jax import json_files, versions

RESULTS = pathlib.Path(__file__).parent / "results"
_QUIET = 0.1  # Seconds of pause before a turn, because PyTorch's threads keep spinning on the cores after their work.
_PACKAGES = ("jax", "flax", "grain", "numpy", "optax", "pillow", "torch")


def interleaved(
    sides: dict[str, Callable[[], object]],
    rounds: int,
    warm_up: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Returns the median seconds of each side; the sides take turns, so that load on the machine affects all.

    With `clock` `time.thread_time` or `time.process_time` they are seconds of the processor.
    """
    seconds = {name: [] for name in sides}
    for number in range(warm_up + rounds):
        for name, run in sides.items():
            began = clock()
            run()
            if number >= warm_up:
                seconds[name].append(clock() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


class Side(NamedTuple):
    """Result of `in_turn` for one side.

    Attributes:
        seconds: Median time of a run.
        user_seconds: Median CPU time of a run in the process itself, summed over its threads.
        kernel_seconds: The same for the kernel's work for the process.
        peak_bytes: Peak resident memory of the process.
        facts: The facts that the side returned about itself.
    """

    seconds: float
    user_seconds: float
    kernel_seconds: float
    peak_bytes: int
    facts: dict


def in_turn(
    sides: dict[str, Callable[[], tuple[Callable[[], object], dict]]], rounds: int, warm_up: int = 2
) -> dict[str, Side]:
    """Measures every side in its own process; the processes take turns, so that load on the machine affects all.

    In one process the libraries' thread pools hinder each other: a JAX step next to PyTorch takes twice its time.

    Args:
        sides: Name -> function without arguments that is called in the new process, so it must be picklable. It
            returns (a function that does the work once and waits for it, facts for the table).
        rounds: Counted runs of each side.
        warm_up: Uncounted runs before them.

    Returns:
        Name -> result.
    """
    # 1. The processes prepare at the same time.
    context = multiprocessing.get_context("spawn")
    pipes = {}
    for name, prepare in sides.items():
        pipes[name], theirs = context.Pipe()
        context.Process(target=_serve, args=(prepare, theirs), daemon=True).start()
        theirs.close()  # With this end open, `recv` would wait forever for a process that failed.
    facts = {name: pipe.recv() for name, pipe in pipes.items()}
    # 2. One process runs at a time.
    times = {name: [] for name in sides}
    for _ in range(warm_up + rounds):
        for name, pipe in pipes.items():
            time.sleep(_QUIET)
            pipe.send(True)
            times[name].append(pipe.recv())
    # 3. Each process ends and sends its peak memory.
    peaks = {}
    for name, pipe in pipes.items():
        pipe.send(False)
        peaks[name] = pipe.recv()
    medians = {
        name: map(statistics.median, zip(*runs[warm_up:], strict=True)) for name, runs in times.items()
    }
    return {name: Side(*medians[name], peaks[name], facts[name]) for name in sides}


def _serve(prepare: Callable[[], tuple[Callable[[], object], dict]], pipe) -> None:
    """Prepares a side, times a run for every True that arrives, and sends the peak memory at the end."""
    run, facts = prepare()
    pipe.send(facts)
    while pipe.recv():
        run()  # Not counted: the other sides left the caches cold, but in training they are warm.
        began = _clocks()
        run()
        pipe.send([after - before for before, after in zip(began, _clocks(), strict=True)])
    pipe.send(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _clocks() -> tuple[float, float, float]:
    """Returns seconds on the clock, and CPU seconds of this process: its own, and the kernel's for it."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), usage.ru_utime, usage.ru_stime


def cores() -> int:
    """Returns the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def machine() -> dict[str, object]:
    """Returns the name of the processor, the cores in use, and the versions of Python and of the packages."""
    names = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    packages = {name: versions.installed(name) for name in _PACKAGES}
    present = {name: version for name, version in packages.items() if version}
    cpu = names[0] if names else platform.processor()
    return {"cpu": cpu, "cores": cores(), "python": platform.python_version(), **present}


def _cpuinfo() -> list[str]:
    path = pathlib.Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Returns rows with the same keys as a Markdown table; floats have three significant digits."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    for row in rows:
        cells = (f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values())
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def print_table(rows: Sequence[Mapping[str, object]]) -> None:
    print(table(rows))


def write(name: str, figures: dict) -> None:
    """Writes results/<name>.json with a description of the machine and the figures."""
    path = RESULTS / f"{name}.json"
    json_files.write(path, {"machine": machine(), **figures})
    print(f"written to {path}")
