"""Measures input speed for the ImageNet recipe: decoded and augmented 224 x 224 images per second of one core.

    python -m experiments.input_speed

Two sides read the same JPEG files (random textures of about 500 x 375, quality 90, in a temporary folder) and
make batches with random resized crop, flip and `rand-m9-mstd0.5`. Normalisation and erasing are not measured,
because they happen on the device.

- ours: `sources.ImageFolder`, `transforms.TrainTransform` and `pipeline.train_batches`, without workers.
- timm: `torch.utils.data.DataLoader` without workers, over the steps of timm's loader. timm needs torchvision,
  which has no build for CPU-only torch, so those steps are written out below after `seaformer-cls/timm/data`.
  The RandAugment operations are Pillow calls on both sides, and both use the same table of them.
  Compared with timm's own modules and the Python part of torchvision 0.29, the rate differed by less than 1 %.

Each side is a process pinned to the same core. They take turns in short rounds, so that a change in the machine's
load affects both. A rate is images per second of the process's CPU time. On an idle core that is wall-clock time; on
a shared core it excludes the time that other programs used. Prints a table and writes
experiments/results/input_speed.json.
"""

import math
import multiprocessing
import os
import pathlib
import random
import statistics
import tempfile
import time

import numpy as np
from PIL import Image

from experiments import measure
from seaformer_jax import config
from seaformer_jax.data import images, pipeline
from seaformer_jax.data.classification import sources
from seaformer_jax.data.classification.randaugment import OPS, Op, Warp
from seaformer_jax.data.classification.transforms import TrainTransform

IMAGES, BATCH, BATCHES, ROUNDS = 200, 64, 8, 20
SIZE = 224
FILL = (124, 116, 104)  # ImageNet's mean colour.


def write_photos(root: pathlib.Path) -> float:
    """Writes IMAGES textures in two classes below root/train; returns the mean file size in kilobytes."""
    rng = np.random.default_rng(0)
    paths = [root / "train" / f"class{i % 2}" / f"{i}.jpg" for i in range(IMAGES)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        width, height = 500 + int(rng.integers(-60, 61)), 375 + int(rng.integers(-45, 46))
        Image.fromarray(_texture(rng, width, height)).save(path, quality=90)
    return statistics.mean(path.stat().st_size for path in paths) / 1000


def _texture(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Returns a sum of noises whose amplitude falls with their frequency, as in photographs; uint8 [H, W, 3]."""
    total = np.full((height, width, 3), 128.0)
    for cells in (4, 8, 16, 32, 64, 128, 256, 512):
        noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3)).astype(np.uint8))
        total += (
            (np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC)) - 127.5) * 1.2 / cells**0.4
        )
    return total.clip(0, 255).astype(np.uint8)


class AsManyAsImageNet:
    """Repeats a source to ImageNet's length, because grain's shuffle takes 0.1 ms per index of a tiny data set."""

    def __init__(self, source):
        self.source = source

    def __len__(self) -> int:
        return 1281167

    def __getitem__(self, index: int) -> dict:
        return self.source[index % len(self.source)]


def our_batches(root: pathlib.Path, seed: int):
    """Returns an iterator of batches with `image` uint8 [BATCH, 224, 224, 3] and `label`."""
    recipe = config.default()
    transform = TrainTransform(SIZE, recipe.augment, recipe.data.mean)
    source = AsManyAsImageNet(sources.ImageFolder(root, "train", images.decode_pillow))
    return pipeline.train_batches(source, transform, batch_size=BATCH, seed=seed)


def timm_batches(root: pathlib.Path, seed: int):
    """Returns an iterator of (images uint8 [BATCH, 3, 224, 224], labels), as torch tensors."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    random.seed(seed)
    loader = torch.utils.data.DataLoader(
        TimmDataset(root / "train"), BATCH, shuffle=True, collate_fn=_fast_collate, drop_last=True
    )
    while True:
        yield from loader


class TimmDataset:
    """An image folder with the steps of timm's `transforms_imagenet_train` for use with its prefetcher."""

    def __init__(self, folder: pathlib.Path):
        self.paths = sorted(folder.glob("*/*.jpg"))
        self.ops = [TimmOp(op) for op in OPS.values()]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        import torch

        path = self.paths[index]
        with open(path, "rb") as file:
            image = Image.open(file).convert("RGB")
        image = _timm_crop(image)
        if torch.rand(1) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        for op in np.random.choice(self.ops, 2):
            image = op(image)
        return np.rollaxis(np.array(image, dtype=np.uint8), 2), int(path.parent.name[-1])


class TimmOp:
    """timm's AugmentOp for `rand-m9-mstd0.5`, applied to an operation of our table."""

    def __init__(self, op: Op):
        self.op = op

    def __call__(self, image: Image.Image) -> Image.Image:
        if random.random() > 0.5:
            return image
        magnitude = max(0.0, min(random.gauss(9, 0.5), 10))
        return self.op.apply(image, self.op.level(magnitude / 10, random), Warp(_timm_filter(), FILL))


def _timm_filter() -> Image.Resampling:
    return random.choice((Image.Resampling.BILINEAR, Image.Resampling.BICUBIC))


def _timm_crop(image: Image.Image) -> Image.Image:
    for _ in range(10):
        area = image.width * image.height * random.uniform(0.08, 1)
        aspect = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if w <= image.width and h <= image.height:
            top, left = random.randint(0, image.height - h), random.randint(0, image.width - w)
            return image.crop((left, top, left + w, top + h)).resize((SIZE, SIZE), _timm_filter())
    return image.resize((SIZE, SIZE), _timm_filter())  # Rare; timm's centred crop costs the same.


def _fast_collate(rows: list[tuple[np.ndarray, int]]):
    import torch

    images = torch.zeros((len(rows), *rows[0][0].shape), dtype=torch.uint8)
    for i, (image, _) in enumerate(rows):
        images[i] += torch.from_numpy(image)
    return images, torch.tensor([label for _, label in rows], dtype=torch.int64)


SIDES = {"ours": our_batches, "timm": timm_batches}


def _serve(side: str, root: pathlib.Path, core: int, pipe) -> None:
    """Makes BATCHES batches for each seed that arrives; sends back (CPU, wall-clock) images per second."""
    os.sched_setaffinity(0, {core})
    while (seed := pipe.recv()) is not None:
        # Every round starts a fresh iterator, so that no images that were read ahead in the last round come for free.
        cpu, wall = time.process_time(), time.perf_counter()
        batches = SIDES[side](root, seed)
        for _ in range(BATCHES):
            next(batches)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        batches.close()
        _settle()
        pipe.send((BATCH * BATCHES / cpu, BATCH * BATCHES / wall))


def _settle() -> None:
    """Waits until the threads of a closed iterator have finished, because the other side uses the core next."""
    before = -1.0
    while time.process_time() - before > 0.001:
        before = time.process_time()
        time.sleep(0.05)


def take_turns(root: pathlib.Path) -> dict[str, list[tuple[float, float]]]:
    """Runs each side in turn, ROUNDS times after an uncounted round; returns (CPU, wall-clock) rates per side."""
    context = multiprocessing.get_context("spawn")
    core = max(os.sched_getaffinity(0))
    pipes, processes = {}, []
    for side in SIDES:
        pipes[side], theirs = context.Pipe()
        processes.append(context.Process(target=_serve, args=(side, root, core, theirs), daemon=True))
        processes[-1].start()
    rates = {side: [] for side in SIDES}
    for seed in range(ROUNDS + 1):
        for side, pipe in pipes.items():
            pipe.send(seed)
            rates[side].append(pipe.recv())
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send(None)
        process.join()
    return {side: values[1:] for side, values in rates.items()}


def figures(rates: dict[str, list[tuple[float, float]]]) -> dict[str, dict[str, float]]:
    """Returns the median rates of each side, and median and quartiles of the ratios of CPU rates, round by round."""
    cpu, wall = ({side: [pair[i] for pair in rates[side]] for side in SIDES} for i in (0, 1))
    ratios = [our / timm for our, timm in zip(cpu["ours"], cpu["timm"], strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4)
    return {
        "images_per_cpu_second": {side: round(statistics.median(cpu[side]), 1) for side in SIDES},
        "images_per_wall_second": {side: round(statistics.median(wall[side]), 1) for side in SIDES},
        "ours_over_timm": {"median": round(median, 3), "quartiles": (round(low, 3), round(high, 3))},
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        setting = {"jpeg_kilobytes": round(write_photos(root), 1), "batch": BATCH}
        setting |= {"images_per_round": BATCH * BATCHES, "rounds": ROUNDS}
        rates = figures(take_turns(root))
    print(f"{'side':6} {'img/s CPU':>10} {'img/s wall':>11}")
    for side in SIDES:
        cpu, wall = rates["images_per_cpu_second"][side], rates["images_per_wall_second"][side]
        print(f"{side:6} {cpu:10.1f} {wall:11.1f}")
    print("ours / timm, CPU: median {median}, quartiles {quartiles}".format(**rates["ours_over_timm"]))
    measure.write("input_speed", {"setting": setting, **rates})


if __name__ == "__main__":
    main()
