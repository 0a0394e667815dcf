"""What each part of a SeaFormer costs on a device, as the latency statistics of the papers.

python -m convert.latency.by_part --model seaformer_base --input-size 512x512 --format litert --device qemu

Exports the network with seeded weights as far as the stem, then with one more part at a time, and measures all of
them in turns: a part costs what it adds. So every operator stays fused with its neighbours as in the whole network.
Prints a table and writes it with the samples to OUT.md and OUT.json. Exit status as of `convert.latency`.
"""

import pathlib
import re
import tempfile
from collections.abc import Sequence

from absl import flags

from convert.bundle import FORMATS, Bundle
from convert.export import seeded_bundles
from convert.graph import partial_networks, seeded_networks
from convert.latency import command, part_costs, table
from convert.latency.devices.registry import find
from convert.latency.turns import measure
from convert.torch_model import VARIANTS
from seaformer_jax.errors import UserError

_MODEL = flags.DEFINE_enum("model", "seaformer_base", list(VARIANTS), "Size.")
_TASK = flags.DEFINE_enum("task", "segmentation", ["classification", "segmentation"], "Task.")
_SIZE = flags.DEFINE_string("input-size", "512x512", "HEIGHTxWIDTH.")
_FORMAT = flags.DEFINE_enum("format", "litert", FORMATS, "Runtime.")
_DEVICE = flags.DEFINE_string("device", "host", "host, qemu, adb[:SERIAL] or ssh:USER@HOST.")
_THREADS = flags.DEFINE_integer("threads", 1, "Threads, each pinned to a core of its own.", lower_bound=1)
_OUT = flags.DEFINE_string("out", "parts", "OUT.json and OUT.md are written.")
_RUNS = 50


def write(folder: pathlib.Path, task: str, name: str, kind: str, size: tuple[int, int]) -> list[Bundle]:
    """Writes a bundle for the network as far as each part, into a folder of its name below `folder`."""
    model, bundles = seeded_networks.seeded(task, name, size), []
    for part, module in partial_networks.up_to(model).items():
        # What ends inside has no labels: its output is taken as it is, as that of a classifier.
        given = task if module is model else "classification"
        bundles.append(seeded_bundles.write_bundle(module, folder / part, given, name, kind, size))
    return bundles


def main(rest: Sequence[str]) -> int:
    size = re.fullmatch(r"(\d+)x(\d+)", _SIZE.value)
    if rest or not size:
        raise UserError(f"found {' '.join(rest) or _SIZE.value!r}; expected --input-size=HEIGHTxWIDTH")
    out, device = command.output(_OUT.value), find(_DEVICE.value, _THREADS.value)
    height, width = map(int, size.groups())
    with tempfile.TemporaryDirectory() as folder:
        bundles = write(pathlib.Path(folder), _TASK.value, _MODEL.value, _FORMAT.value, (height, width))
        report = measure(device, bundles, _RUNS)
    table.write(report, out)
    title = f"{_MODEL.value}, {_TASK.value}, {height}x{width}, {_FORMAT.value}, {report['unit']}"
    text = f"{title} on {report['device']}\n\n{part_costs.table(report)}"
    out.with_name(out.name + ".md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    command.run(main)
