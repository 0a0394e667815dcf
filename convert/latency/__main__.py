"""Measures bundles end to end on a device, step by step, taking turns.

python -m convert.latency BUNDLE... --device host|qemu|adb[:SERIAL]|ssh:USER@HOST [--threads 1] [--runs 50]

Prints a table and writes it with the raw samples to OUT.md and OUT.json. Exit status 2 for a wrong command line or
bundle, 3 for a device that is missing or cannot be used, 1 where a bundle computes something else there than when it
was exported.
"""

import pathlib
import sys
from collections.abc import Sequence

from absl import flags

from convert.bundle import Bundle
from convert.latency import command, table
from convert.latency.devices.registry import find
from convert.latency.turns import measure
from seaformer_jax.errors import UserError

_LEAST_RUNS = 50

_DEVICE = flags.DEFINE_string("device", "host", "host, qemu, adb[:SERIAL] or ssh:USER@HOST.")
_THREADS = flags.DEFINE_integer("threads", 1, "Threads, each pinned to a core of its own.", lower_bound=1)
_RUNS = flags.DEFINE_integer("runs", _LEAST_RUNS, "Counted runs of each bundle.", lower_bound=_LEAST_RUNS)
_OUT = flags.DEFINE_string("out", "latency", "OUT.json and OUT.md are written.")


def main(folders: Sequence[str]) -> int:
    if not folders:
        raise UserError("no bundle is given; expected folders that convert.export wrote")
    out = command.output(_OUT.value)
    bundles = [Bundle.open(pathlib.Path(folder)) for folder in folders]
    report = measure(find(_DEVICE.value, _THREADS.value), bundles, _RUNS.value)
    print(table.write(report, out))
    wrong = [record["bundle"] for record in report["bundles"] if not record["parity"]["ok"]]
    if wrong:
        print(f"error: {', '.join(wrong)}: other output there than when it was exported", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    command.run(main)
