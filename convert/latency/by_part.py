"""Measures the cost of each part of a SeaFormer on a device, like the latency statistics of the papers.

python -m convert.latency.by_part --model seaformer_base --input-size 512x512 --format litert --device qemu

Exports the network with seeded weights up to the stem, and then with one more part at a time. All of these networks
are measured in turns, and the cost of a part is what it adds to the network before it. Every operator is therefore
fused with its neighbours as in the whole network.

Prints a table, and writes it to OUT.md and the samples to OUT.json. The exit status is 2 for a wrong command line and
3 for a device that is missing or cannot be used.
"""

import pathlib
import tempfile
from collections.abc import Iterator

from absl import flags

from convert.bundle import NATIVE, Bundle
from convert.export import seeded_bundles
from convert.export.request import parse_size
from convert.graph import partial_networks, seeded_networks
from convert.latency import part_costs, table
from convert.latency.devices.registry import find
from convert.latency.turns import measure
from convert.torch_model import VARIANTS
from seaformer_jax import command

_MODEL = flags.DEFINE_enum("model", "seaformer_base", list(VARIANTS), "Model size.")
_TASK = flags.DEFINE_enum("task", "segmentation", ["classification", "segmentation"], "Task.")
_SIZE = flags.DEFINE_string("input-size", "512x512", "Input size, HEIGHTxWIDTH.")
_FORMAT = flags.DEFINE_enum("format", "litert", NATIVE, "Format of the bundles, and so the runtime.")
_DEVICE = flags.DEFINE_string(
    "device", "host", "Device to measure on: host, qemu, adb[:SERIAL] or ssh:USER@HOST."
)
_THREADS = flags.DEFINE_integer("threads", 1, "Number of threads, pinned to as many cores.", lower_bound=1)
_OUT = command.define_path("out", "Path of the results; OUT.json and OUT.md are written.", default="parts")
_RUNS = 50


def write(folder: pathlib.Path, task: str, name: str, kind: str, size: tuple[int, int]) -> Iterator[Bundle]:
    """Writes one bundle for the network up to each part; the folder of a bundle is named after its last part.

    Args:
        folder: Folder to write the bundles into.
        task: "classification" or "segmentation".
        name: Name of the model size, such as "seaformer_tiny".
        kind: Format of the bundles, one of `NATIVE`.
        size: Height and width of the input.

    Yields:
        The bundles, in the order of the parts.
    """
    model = seeded_networks.seeded(task, name, size)
    for part, module in partial_networks.up_to(model).items():
        # A partial network ends in a feature map, which has no label map. As a classifier it gets no resize.
        bundle_task = task if module is model else "classification"
        yield seeded_bundles.write_bundle(module, folder / part, bundle_task, name, kind, size)


def main() -> int:
    """Measures the parts of the model that the flags name and returns the exit status."""
    (height, width), out = parse_size(_SIZE.value), table.location(_OUT.value)
    device, bundles = find(_DEVICE.value, _THREADS.value), []
    with tempfile.TemporaryDirectory() as folder:
        for bundle in write(pathlib.Path(folder), _TASK.value, _MODEL.value, _FORMAT.value, (height, width)):
            # Already the first one tells whether the device runs such bundles.
            device.check(bundle)
            bundles.append(bundle)
        report = measure(device, bundles, _RUNS)
    table.write(report, out)  # For OUT.json; its OUT.md is replaced below.
    title = f"{_MODEL.value}, {_TASK.value}, {height}x{width}, {_FORMAT.value}, {report['unit']}"
    text = f"{title} on {report['device']}\n\n{part_costs.table(report)}"
    out.with_name(out.name + ".md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    command.run(main)
