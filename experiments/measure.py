"""What the benchmarks share: taking turns, the machine's name, tables and result files."""

import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable

RESULTS = pathlib.Path(__file__).parent / "results"
_QUIET = 0.3  # seconds
_PACKAGES = ("jax", "flax", "grain", "numpy", "optax", "pillow", "torch")


def interleaved(sides: dict[str, Callable[[], object]], rounds: int, warm_up: int = 2) -> dict[str, float]:
    """Returns the median seconds of each side; the sides take turns, so that load on the machine meets all.

    Before each turn it is quiet for a moment: PyTorch's threads go on spinning on the cores after their work.
    """
    seconds = {name: [] for name in sides}
    for number in range(warm_up + rounds):
        for name, run in sides.items():
            time.sleep(_QUIET)
            began = time.perf_counter()
            run()
            if number >= warm_up:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def machine() -> dict[str, object]:
    """Processor, cores in use, Python and package versions."""
    names = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES if _installed(name)}
    cpu = names[0] if names else platform.processor()
    return {"cpu": cpu, "cores": cores(), "python": platform.python_version(), **versions}


def _cpuinfo() -> list[str]:
    path = pathlib.Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def _installed(name: str) -> bool:
    try:
        return bool(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return False


def print_table(rows: list[dict]) -> None:
    """Prints rows of the same keys as a Markdown table."""
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        cells = (f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values())
        print("| " + " | ".join(cells) + " |")


def write(name: str, figures: dict) -> None:
    """Writes results/<name>.json: the machine and the figures."""
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **figures}, indent=2) + "\n")
    print(f"written to {path}")
