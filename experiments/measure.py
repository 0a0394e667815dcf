"""What the benchmarks share: taking turns, the machine's name, tables and result files."""

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
_QUIET = 0.1  # Seconds before a turn: PyTorch's threads go on spinning on the cores after their work.
_PACKAGES = ("jax", "flax", "grain", "numpy", "optax", "pillow", "torch")


def interleaved(sides: dict[str, Callable[[], object]], rounds: int, warm_up: int = 2) -> dict[str, float]:
    """Returns the median seconds of each side; the sides take turns, so that load on the machine meets all."""
    seconds = {name: [] for name in sides}
    for number in range(warm_up + rounds):
        for name, run in sides.items():
            began = time.perf_counter()
            run()
            if number >= warm_up:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


class Side(NamedTuple):
    """What `in_turn` found of one side."""

    seconds: float  # median of a run
    peak_bytes: int  # of the process's resident memory
    facts: dict  # what the side told of itself


def in_turn(
    sides: dict[str, Callable[[], tuple[Callable[[], object], dict]]], rounds: int, warm_up: int = 2
) -> dict[str, Side]:
    """Measures every side in a process of its own; the processes take turns, so that load on the machine meets all.

    In one process the libraries' thread pools are in each other's way: a JAX step next to PyTorch takes twice its
    time.

    Args:
        sides: name -> function without arguments, called in the new process (so it must be picklable), that returns
          (a function that does the work once and waits for it, facts for the table).
        rounds: counted runs of each side.
        warm_up: runs before them.
    """
    context = multiprocessing.get_context("spawn")
    pipes = {}
    for name, prepare in sides.items():
        pipes[name], theirs = context.Pipe()
        context.Process(target=_serve, args=(prepare, theirs), daemon=True).start()
        theirs.close()  # Or the end of a process that fails would never be noticed here.
    facts = {name: pipe.recv() for name, pipe in pipes.items()}
    seconds = {name: [] for name in sides}
    for _ in range(warm_up + rounds):
        for name, pipe in pipes.items():
            time.sleep(_QUIET)
            pipe.send(True)
            seconds[name].append(pipe.recv())
    peaks = {}
    for name, pipe in pipes.items():
        pipe.send(False)
        peaks[name] = pipe.recv()
    return {
        name: Side(statistics.median(values[warm_up:]), peaks[name], facts[name])
        for name, values in seconds.items()
    }


def _serve(prepare: Callable[[], tuple[Callable[[], object], dict]], pipe) -> None:
    """Prepares a side, then times it for every True that arrives; tells its peak memory at the end."""
    run, facts = prepare()
    pipe.send(facts)
    while pipe.recv():
        run()  # Not counted: after the others' turn the caches are cold, and steps of a training are not.
        began = time.perf_counter()
        run()
        pipe.send(time.perf_counter() - began)
    pipe.send(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def machine() -> dict[str, object]:
    """Processor, cores in use, Python and package versions."""
    names = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    packages = {name: versions.installed(name) for name in _PACKAGES}
    present = {name: version for name, version in packages.items() if version}
    cpu = names[0] if names else platform.processor()
    return {"cpu": cpu, "cores": cores(), "python": platform.python_version(), **present}


def _cpuinfo() -> list[str]:
    path = pathlib.Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows of the same keys as Markdown; numbers with three digits."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    for row in rows:
        cells = (f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values())
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def print_table(rows: Sequence[Mapping[str, object]]) -> None:
    print(table(rows))


def write(name: str, figures: dict) -> None:
    """Writes results/<name>.json: the machine and the figures."""
    path = RESULTS / f"{name}.json"
    json_files.write(path, {"machine": machine(), **figures})
    print(f"written to {path}")
