"""Measures input speed for the ImageNet recipe: training images per second of one core, against timm's loader.

    python -m experiments.input_speed [--photographs FOLDER] [--rounds N]

The same JPEG files of about 500 x 375 pixels, quality 90, are read in six ways; they are random textures, and
photographs if a folder with some is given (by default `../shared/data`, where it exists). All make batches of 64 with
random resized crop, flip and `rand-m9-mstd0.5`. What the device does is not counted: `experiments.tpu_program` says
what it costs there.

- timm: `torch.utils.data.DataLoader` without workers, over the steps of timm's loader. timm needs torchvision,
  which has no build for CPU-only torch, so those steps are written out after `seaformer-cls/timm/data`.
  The RandAugment operations are Pillow calls on both sides, and both use the same table of them.
  Compared with timm's own modules and the Python part of torchvision 0.29, the rate differed by less than 1 %.
- folder: `ImageFolder`, `TrainTransform` and `pipeline.train_batches`, without workers.
- folder, device: with `augment.on_device`; the host decodes, crops and resizes.
- jpeg records, uint8 records: what `seaformer_jax.prepare` makes of the files, with a short side of 256. With
  `device` the host decodes or maps an image, and copies the crop.

Each side is a process pinned to the same core. They take turns in short rounds, so that a change in the machine's
load affects all. A rate is images per second of the process's CPU time. On an idle core that is wall-clock time; on
a shared core it excludes the time that other programs used. Prints tables and writes
experiments/results/input_speed.json and .md.
"""

import argparse
import multiprocessing
import os
import pathlib
import statistics
import tempfile
import time

from etils import epath

from experiments import input_sides, input_stages, measure
from seaformer_jax.data import images
from seaformer_jax.data.classification import prepare, sources

IMAGES = 240
MAIN = "jpeg records, device"  # The side of the figure `ours_over_timm`.
_SHARED = pathlib.Path(__file__).parents[2] / "shared" / "data"


def pack(root: pathlib.Path) -> None:
    """Packs the folder at `root` into records of each store below it."""
    source = sources.ImageFolder(root, "train", images.decode_pillow)
    for store in input_sides.STORES:
        folder = epath.Path(root) / store / "train"
        folder.mkdir(parents=True)
        prepare.prepare(source, folder, prepare.Settings(store, input_sides.SHORT_SIDE, 90, 4096, False))


def _serve(side: str, root: pathlib.Path, core: int, pipe) -> None:
    """Makes the batches of a round for each seed that arrives; sends back images per second of CPU time."""
    os.sched_setaffinity(0, {core})
    make, count = input_sides.SIDES[side]
    while (seed := pipe.recv()) is not None:
        # Every round starts a fresh iterator, so that no images that were read ahead in the last round come for free.
        began = time.process_time()
        batches = make(root, seed)
        for _ in range(count):
            next(batches)
        seconds = time.process_time() - began
        batches.close()
        _settle()
        pipe.send(input_sides.BATCH * count / seconds)


def _settle() -> None:
    """Waits until the threads of a closed iterator have finished, because the other side uses the core next."""
    before = -1.0
    while time.process_time() - before > 0.001:
        before = time.process_time()
        time.sleep(0.05)


def take_turns(root: pathlib.Path, rounds: int) -> dict[str, list[float]]:
    """Runs each side in turn, `rounds` times after an uncounted round; returns the rates of each side."""
    context = multiprocessing.get_context("spawn")
    core = max(os.sched_getaffinity(0))
    pipes, processes = {}, []
    for side in input_sides.SIDES:
        pipes[side], theirs = context.Pipe()
        processes.append(context.Process(target=_serve, args=(side, root, core, theirs), daemon=True))
        processes[-1].start()
    rates = {side: [] for side in input_sides.SIDES}
    for seed in range(rounds + 1):
        for side, pipe in pipes.items():
            pipe.send(seed)
            rates[side].append(pipe.recv())
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send(None)
        process.join()
    return {side: values[1:] for side, values in rates.items()}


def figures(rates: dict[str, list[float]]) -> dict[str, dict[str, object]]:
    """Returns for each side the median rate, and median and quartiles of its ratio to timm's, round by round."""
    found = {}
    for side, values in rates.items():
        ratios = [ours / timm for ours, timm in zip(values, rates["timm"], strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4)
        over = {"median": round(median, 2), "quartiles": (round(low, 2), round(high, 2))}
        found[side] = {"images_per_cpu_second": round(statistics.median(values), 1), "over_timm": over}
    return found


def measured(kind: str, folder: pathlib.Path | None, rounds: int) -> dict[str, object]:
    """Writes images, measures all sides and stages on them, and returns the figures."""
    with tempfile.TemporaryDirectory() as scratch:
        root = pathlib.Path(scratch)
        if folder:
            kilobytes = input_sides.write_photographs(root, folder, IMAGES)
        else:
            kilobytes = input_sides.write_textures(root, IMAGES)
        pack(root)
        sides = figures(take_turns(root, rounds))
        return {"jpeg_kilobytes": round(kilobytes, 1), "sides": sides, "stages": input_stages.table(root)}


def report(found: dict[str, dict]) -> str:
    """Returns the tables in Markdown."""
    lines = ["# Input", "", "Images per CPU second of one core, and how many times timm's that is.", ""]
    rows = [
        {
            "side": side,
            **{key: value for kind in found for key, value in _cells(kind, found[kind]["sides"][side])},
        }
        for side in input_sides.SIDES
    ]
    lines += [measure.table(rows)]
    for kind, part in found.items():
        lines += ["", f"CPU microseconds per image of the {kind} ({part['jpeg_kilobytes']} kB each):", ""]
        lines += [measure.table(part["stages"])]
    return "\n".join(lines) + "\n"


def _cells(kind: str, side: dict) -> list[tuple[str, object]]:
    over = side["over_timm"]
    ratio = f"{over['median']:.2f} ({over['quartiles'][0]:.2f}..{over['quartiles'][1]:.2f})"
    return [(f"{kind}, images/s", round(side["images_per_cpu_second"])), (f"{kind}, times timm", ratio)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=pathlib.Path, default=_SHARED if _SHARED.exists() else None)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    folders = {"textures": None} | ({"photographs": arguments.photographs} if arguments.photographs else {})
    found = {kind: measured(kind, folder, arguments.rounds) for kind, folder in folders.items()}
    print(report(found))
    of = list(found)[-1]
    setting = {
        "batch": input_sides.BATCH,
        "images": IMAGES,
        "rounds": arguments.rounds,
        "of": f"{MAIN}; {of}",
    }
    ratio = found[of]["sides"][MAIN]["over_timm"]
    measure.write("input_speed", {"setting": setting, "ours_over_timm": ratio, **found})
    (measure.RESULTS / "input_speed.md").write_text(report(found))


if __name__ == "__main__":
    main()
