"""Measures every step of one or more bundles on a device; the bundles take turns.

python -m convert.latency BUNDLE... --device host|qemu|browser[:webgpu]|adb[:SERIAL]|ssh:USER@HOST \\
    [--threads 1] [--runs 50]

Prints a table, and writes it to OUT.md and the raw samples to OUT.json.

Exit status:
    1: The output of a bundle on the device differs from its output at export.
    2: The command line or a bundle is wrong.
    3: The device is missing or cannot be used.
"""

import sys
from collections.abc import Sequence

from absl import flags

from convert import bundle_folder
from convert.latency import by_operator, table
from convert.latency.devices.registry import find
from convert.latency.turns import measure
from seaformer_jax import command
from seaformer_jax.errors import UserError

_LEAST_RUNS = 50

_DEVICE = flags.DEFINE_string(
    "device", "host", "Device to measure on: host, qemu, browser[:webgpu], adb[:SERIAL] or ssh:USER@HOST."
)
_THREADS = flags.DEFINE_integer("threads", 1, "Number of threads, pinned to as many cores.", lower_bound=1)
_RUNS = flags.DEFINE_integer(
    "runs", _LEAST_RUNS, "Measured runs of each bundle, without warm-up runs.", lower_bound=_LEAST_RUNS
)
_BY = flags.DEFINE_enum(
    "by",
    "step",
    ["step", "operator"],
    "step: pre-processing, network, post-processing; operator: each kind of operator of the network (onnx, web, "
    "litert, openvino, mnn).",
)
_OUT = command.define_path("out", "Path of the results; OUT.json and OUT.md are written.", default="latency")


def main(folders: Sequence[str]) -> int:
    """Measures the bundles in `folders` and returns the exit status."""
    if not folders:
        raise UserError("no bundle is given; expected the folders that convert.export wrote")
    # Checked first, so that a wrong path or bundle is reported before anything is measured.
    out = table.location(_OUT.value)
    with bundle_folder.reading(folders) as bundles:
        if _BY.value == "operator":
            if _DEVICE.value != "host":
                raise UserError(f"--by operator measures on this machine, not on --device {_DEVICE.value}")
            print(by_operator.write(bundles, _RUNS.value, _THREADS.value, out))
            return 0
        report = measure(find(_DEVICE.value, _THREADS.value), bundles, _RUNS.value)
    print(table.write(report, out))
    wrong = [record["bundle"] for record in report["bundles"] if not record["parity"]["ok"]]
    if wrong:
        print(
            f"error: {', '.join(wrong)}: the output on this device differs from the output at export",
            file=sys.stderr,
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    command.run(main, operands="BUNDLE")
