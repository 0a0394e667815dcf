"""Prints the most expensive operations of a trace that training wrote (`config.profile`), without TensorBoard.

    python -m experiments.profile_table runs/quickstart [--top 15] [--out FILE.md]

Operations are those of the compiled program without their numbers: `dot.12` and `dot.65` are both `dot`. The time of
a loop leaves out the operations inside it. Times are sums over threads or devices. Only CPU traces have been read so
far. In a TPU trace, operations are the events of the line "XLA Ops" (XProf's xplane_schema.h); elsewhere, those with
the statistic `hlo_op`.
"""

import argparse
import collections
import pathlib
import re
import sys
from collections.abc import Iterable, Iterator

from jax.profiler import ProfileData

from experiments import measure
from seaformer_jax.training import workdir

_OPERATIONS = "XLA Ops"  # Name of the line of a TPU's operations.
_NUMBERS = re.compile(r"[.\d]+$")


def operations(planes: Iterable) -> Iterator[list[tuple[float, float, str]]]:
    """Yields (start, end, name) of the operations of each line of a trace; a line is a thread or a device.

    Args:
        planes: `planes` of a `jax.profiler.ProfileData`.
    """
    for plane in planes:
        for line in plane.lines:
            everything = line.name == _OPERATIONS
            yield [
                # The event of a TPU is named by its whole instruction: `%dot.12 = f32[...] dot(...)`.
                (event.start_ns, event.end_ns, event.name.split(" = ")[0].lstrip("%"))
                for event in line.events
                if everything or "hlo_op" in dict(event.stats)
            ]


def own_times(line: Iterable[tuple[float, float, str]]) -> Iterator[tuple[str, float]]:
    """Yields the name of each operation with its nanoseconds, and once more with those inside it, as a negative."""
    running = []  # The operation that runs and those around it, the outermost first.
    for start, end, name in sorted(line, key=lambda event: (event[0], -event[1])):
        while running and running[-1][1] <= start:
            running.pop()
        if running:
            yield running[-1][2], start - end
        running.append((start, end, name))
        yield name, end - start


def rows(data: ProfileData) -> list[dict]:
    """Returns a row for each kind of operation, the most expensive first."""
    lines = [*operations(data.planes)]
    events = (event for plane in data.planes for line in plane.lines for event in line.events)
    steps = sum(event.name == "train" for event in events)  # The loop's annotation of a step.
    times, runs = collections.Counter(), collections.Counter()
    for line in lines:
        runs.update(_NUMBERS.sub("", name) for _, _, name in line)
        for name, nanoseconds in own_times(line):
            times[_NUMBERS.sub("", name)] += nanoseconds
    return [
        {
            "operation": name,
            "share": f"{time / times.total():.1%}",
            "ms per step": time / 1e6 / steps,
            "runs per step": f"{runs[name] / steps:g}",
        }
        for name, time in times.most_common()
    ]


def newest_trace(run: pathlib.Path) -> pathlib.Path:
    """Returns the newest trace in the workdir `run`; ends the script if it has none."""
    traces = sorted(run.glob("profile/plugins/profile/*/*.xplane.pb"))
    if not traces:
        sys.exit(f"error: {run} has no trace; train with --config.profile.steps=10")
    return traces[-1]


def heading(run: pathlib.Path) -> str:
    """Returns the title of the table's file, and the lines that say what was traced and where."""
    config, _ = workdir.read(run)
    machine = ", ".join(f"{name} {value}" for name, value in measure.machine().items())
    return (
        "# The most expensive operations of a training step\n\n"
        f"`{config.model.name}` in {config.dtype}, {config.batch_size} images per step.\n{machine}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdir", type=pathlib.Path)
    parser.add_argument("--top", type=int, default=15, help="number of rows")
    parser.add_argument("--out", type=pathlib.Path, help="Markdown file for the table")
    options = parser.parse_args()
    table = measure.table(rows(ProfileData.from_file(str(newest_trace(options.workdir))))[: options.top])
    print(table)
    if options.out:
        options.out.write_text(f"{heading(options.workdir)}\n\n{table}\n")


if __name__ == "__main__":
    main()
