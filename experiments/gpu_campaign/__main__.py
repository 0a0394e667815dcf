"""Measures on a GPU what is to be known of it, in parts that can be stopped and resumed.

    python -m experiments.gpu_campaign --part NAME|all --out FOLDER [--minutes 9] [--shared ../shared]

- install: packages, driver and devices.
- golden: deviation from the stored outputs of the official models, in float32 and bfloat16.
- train_speed: training step of every size and both tasks against torch.compile.
- evaluation: class maps of whole images of 1024x2048 against PyTorch.
- bandwidth: the recipes' steps against the time that their memory traffic takes at least.
- input: JPEG files to the device with all cores, and the share of the time that training waits for them.
- camvid: CamVid with three seeds.
- large_batch: RMSpropTF, LAMB and LARS from batch 256 to 8192 at equal epochs.
- attention: kinds of attention on CamVid with three seeds.

A call ends when its minutes are over, and the next one goes on: what is in the result file is not measured again, and
trainings resume from their checkpoints in --out. The results are experiments/results/gpu_campaign.json and .md on a
GPU. A trial on another device leaves them in --out. Units that failed are tried again with --again only.

Exit status: 0 if everything is measured, 1 if units failed, 3 if the time was up.
"""

import argparse
import os
import pathlib
import sys
import time
from collections.abc import Callable, Sequence

from experiments import measure
from experiments.gpu_campaign import part as parts
from experiments.gpu_campaign import worker
from experiments.gpu_campaign.record import Record
from experiments.gpu_campaign.settings import SHARED, Settings
from experiments.gpu_campaign.worker import Ended

FAILED, TIME_UP = 1, 3  # Exit statuses.
Measure = Callable[[str, str, Settings, float], Ended]


def main() -> int:
    """Runs the campaign and returns the exit status."""
    options = _options()
    ends = time.monotonic() + 60 * options.minutes
    settings = Settings(options.out.absolute(), options.shared.absolute(), options.init)
    chosen = parts.NAMES if options.part == "all" else (options.part,)
    # Every process finds the programs that another one compiled before it was stopped.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(settings.out / "xla")
    worker.preload([parts.module(name) for name in chosen])
    facts = worker.measure(parts.module("install"), "machine", settings, 60 * options.minutes)
    if facts.row is None:
        print(f"error: {facts.error or 'the time was too short to look at the machine'}", file=sys.stderr)
        return FAILED
    folder = measure.RESULTS if facts.row["platform"] == "gpu" else settings.out
    command = f"python -m experiments.gpu_campaign --part {options.part}"
    record = Record(folder, facts.row, command)
    return run(chosen, settings, record, worker.measure, lambda: ends - time.monotonic(), options.again)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=(*parts.NAMES, "all"), required=True)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/gpu_campaign"))
    parser.add_argument("--minutes", type=float, default=9.0, help="of this call")
    parser.add_argument("--shared", type=pathlib.Path, default=SHARED)
    parser.add_argument("--init", default="", help="workdir or checkpoint of a classifier, for camvid")
    parser.add_argument("--again", action="store_true", help="tries units again that failed before")
    return parser.parse_args()


def run(
    names: Sequence[str],
    settings: Settings,
    record: Record,
    measure_unit: Measure,
    left: Callable[[], float],
    again: bool = False,
) -> int:
    """Measures all units of the parts that the record lacks, as long as there is time.

    Args:
        names: Names of the parts.
        settings: Sizes and folders.
        record: Results so far; each unit is added as it ends.
        measure_unit: Measures one unit, as `worker.measure`.
        left: Returns the seconds that are left.
        again: Whether to try units again that failed.

    Returns:
        The exit status.
    """
    failed = False
    for name in names:
        module = parts.module(name)
        part = parts.load(module)
        for unit in part.units(settings):
            if record.has(name, unit, failures=not again):
                continue
            began = left()
            ended = measure_unit(module, unit, settings, began) if began > 0 else Ended()
            if ended == Ended():
                print(f"{name}, {unit}: time is up; the same command goes on here", flush=True)
                return TIME_UP
            record.add(name, part, unit, ended, began - left())
            failed |= ended.row is None
            print(f"{name}, {unit}: {ended.error or ended.row}", flush=True)
    return FAILED if failed else 0


if __name__ == "__main__":
    sys.exit(main())
