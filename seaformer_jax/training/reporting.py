"""Reports on a run: model overview, clock and progress lines."""

import collections
import math
import time
from typing import Any

import jax
import numpy as np
from absl import logging

from seaformer_jax.errors import DivergedError
from seaformer_jax.types import Tree

_WORDS = {"loss": "loss", "grad_norm": "gradient"}  # Metric -> its name in error messages.


class Clock:
    """Sums up the seconds that a run spends on each purpose.

    Args:
        saved: The sums of the run before it was resumed, from its checkpoint.
    """

    def __init__(self, saved: dict[str, float] | None = None):
        self.seconds = collections.defaultdict(float, saved or {})
        self._last = time.monotonic()

    def charge(self, purpose: str) -> None:
        """Adds the time since the last call to the sum of `purpose`: data, train, evaluate or checkpoint."""
        now = time.monotonic()
        self.seconds[purpose] += now - self._last
        self._last = now


class Window:
    """Collects the metrics of the steps since the last progress line.

    Args:
        total_steps: Steps of the whole run, for the remaining time.
        batch_size: Global batch size, for the speed.
        start_step: Step at which the run starts or resumes.
        clock: Clock of the run.
    """

    def __init__(self, total_steps: int, batch_size: int, start_step: int, clock: Clock):
        self.total_steps, self.batch_size, self.clock = total_steps, batch_size, clock
        self._open(start_step)

    def _open(self, step: int) -> None:
        self.first, self._metrics, self._skipped = step, [], 0
        self._booked = dict(self.clock.seconds)

    @property
    def steps(self) -> int:
        """Number of steps in the window."""
        return len(self._metrics)

    def add(self, metrics: dict[str, jax.Array]) -> None:
        """Adds a step's metrics without waiting for the device."""
        self._metrics.append(metrics)

    def add_skipped(self, files: np.ndarray) -> None:
        """Adds the numbers of broken images [B] that were skipped to get each image of a batch."""
        self._skipped += int(files.sum())

    def close(self, step: int) -> dict[str, float]:
        """Returns the means of the metrics and the speed over the window that ends at `step`, and opens the next one.

        Returns:
            The means of the metrics by name, `images_per_second`, `data_share` (share of the time for data and
            training that was spent on data), `skipped` (number of broken images) and `eta_seconds` (remaining time).
        Raises:
            DivergedError: A loss or a gradient is not finite.
        """
        # One transfer for the whole window; it waits for the steps, and that time belongs to training.
        rows = jax.device_get(self._metrics)
        self.clock.charge("train")
        means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        self._check_finite(rows, step)
        # The speed leaves out the time of evaluation and checkpoints.
        spent = {key: self.clock.seconds[key] - self._booked.get(key, 0.0) for key in ("data", "train")}
        seconds = max(sum(spent.values()), 1e-9)
        means["images_per_second"] = self.batch_size * len(rows) / seconds
        means["data_share"] = spent["data"] / seconds
        means["skipped"] = self._skipped
        means["eta_seconds"] = seconds / len(rows) * (self.total_steps - step)
        self._open(step)
        return means

    def _check_finite(self, rows: list[dict[str, np.ndarray]], step: int) -> None:
        """Raises DivergedError if a loss or a gradient is not finite.

        The gradient is checked too, because it spoils the parameters one step before the loss shows it.
        """
        for number, row in enumerate(rows, self.first + 1):
            for name in ("loss", "grad_norm"):
                if not math.isfinite(row[name]):
                    raise DivergedError(
                        f"the {_WORDS[name]} is not finite: first at step {number}, in the window of steps "
                        f"{self.first + 1}-{step}. No checkpoint has a state of this window"
                    )


def progress_line(step: int, total: int, values: dict[str, float]) -> str:
    """Returns e.g. `step 12500/160000 (7.8%) loss 1.234 lr 4.6e-04 img/s 812 data 2% ETA 5h12m`."""
    speed = values["images_per_second"]
    skipped = f" skipped {values['skipped']:.0f}" if values["skipped"] else ""
    return (
        f"step {step}/{total} ({100 * step / total:.1f}%) loss {values['loss']:.3f} lr {values['lr']:.1e} "
        f"img/s {speed:.{0 if speed >= 100 else 1}f} data {100 * values['data_share']:.0f}%{skipped} "
        f"ETA {duration(values['eta_seconds'])}"
    )


def results_line(step: int, results: dict[str, float], split: str = "val") -> str:
    """Returns e.g. `step 500 val loss 1.021 top1 71.2 top5 97.3 images 329`."""
    return f"step {step} {split} " + " ".join(
        f"{name} {value:{'d' if isinstance(value, int) else '.4g'}}" for name, value in results.items()
    )


def duration(seconds: float) -> str:
    """Returns e.g. `5h12m`, `3m07s` or `12s`."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"


def log_parameters(params: Tree) -> None:
    """Logs the number of parameters of each part of the model."""
    parts = collections.Counter()
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        names = [str(key.key) for key in path]
        # The stages of the backbone are listed one by one, every other part as a whole.
        parts["/".join(names[:3] if names[1] == "stages" else names[:1])] += leaf.size
    for part, count in parts.items():
        logging.info("parameters %-24s %12s", part, f"{count:,}")
    logging.info("parameters %-24s %12s", "total", f"{sum(parts.values()):,}")


def log_compiled(compiled: Any, seconds: float) -> None:
    """Logs the compile time, and the memory, operations and traffic of the compiled training step on each device."""
    # Some platforms do not report one or the other.
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
    sizes = {name: getattr(memory, f"{name}_size_in_bytes", None) for name in ("argument", "output", "temp")}
    parts = [f"{name} {size / 1e6:.0f} MB" for name, size in sizes.items() if size is not None]
    # XLA's count of the bytes that all operations read and write, those in caches and on-chip memory included.
    counts = {"GFLOP": cost.get("flops"), "GB accessed": cost.get("bytes accessed")}
    parts += [f"{count / 1e9:.2f} {name}" for name, count in counts.items() if count is not None]
    logging.info(
        "training step compiled in %.1f s; per device: %s", seconds, ", ".join(parts) or "not reported"
    )
