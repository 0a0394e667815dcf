"""The sides of `input_speed`: timm's loader, and this project's with ever more of the work on the device."""

import math
import pathlib
import random
import statistics
from collections.abc import Iterator

import numpy as np
from PIL import Image

from seaformer_jax import config
from seaformer_jax.data import images, pipeline
from seaformer_jax.data.classification import records, sources
from seaformer_jax.data.classification.randaugment import OPS, Op, Warp
from seaformer_jax.data.classification.transforms import TrainTransform, WindowTransform
from seaformer_jax.data.sources import SkipCorrupt, Source

BATCH, SIZE = 64, 224
FILL = (124, 116, 104)  # ImageNet's mean colour.
SHORT_SIDE = 256  # Of the records.
STORES = ("jpeg", "uint8")

# --- The images ---


def write_textures(root: pathlib.Path, count: int) -> float:
    """Writes textures of about 500 x 375 in two classes below root/train; returns the mean file size in kB."""
    rng = np.random.default_rng(0)
    return _write(root, (_texture(rng, *_imagenet_size(rng)) for _ in range(count)))


def write_photographs(root: pathlib.Path, folder: pathlib.Path, count: int) -> float:
    """Writes photographs, taken evenly from those below `folder`, as `write_textures` writes textures."""
    paths = sorted(
        path for path in folder.rglob("*") if path.suffix in (".jpg", ".png") and "images" in path.parts
    )
    rng = np.random.default_rng(0)
    chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, count).astype(int)]
    opened = (Image.open(path).convert("RGB") for path in chosen)
    return _write(root, (image.resize(_imagenet_size(rng), Image.Resampling.LANCZOS) for image in opened))


def _write(root: pathlib.Path, pictures: Iterator[Image.Image]) -> float:
    sizes = []
    for i, picture in enumerate(pictures):
        path = root / "train" / f"class{i % 2}" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        upright = i % 5 == 0
        (picture.transpose(Image.Transpose.ROTATE_90) if upright else picture).save(path, quality=90)
        sizes.append(path.stat().st_size)
    return statistics.mean(sizes) / 1000


def _imagenet_size(rng: np.random.Generator) -> tuple[int, int]:
    """Returns a width and height about those of most of ImageNet's images, 500 x 375."""
    return 500 + int(rng.integers(-60, 61)), 375 + int(rng.integers(-45, 46))


def _texture(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Returns a sum of noises whose amplitude falls with their frequency, as in photographs."""
    total = np.full((height, width, 3), 128.0)
    for cells in (4, 8, 16, 32, 64, 128, 256, 512):
        noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3)).astype(np.uint8))
        resized = np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC))
        total += (resized - 127.5) * 1.2 / cells**0.4
    return Image.fromarray(total.clip(0, 255).astype(np.uint8))


# --- Our sides: (root, seed) -> batches ---


class AsManyAsImageNet:
    """Repeats a source to ImageNet's length, because grain's shuffle takes 0.1 ms per index of a tiny data set."""

    def __init__(self, source: Source):
        self.source, self.labels = source, source.labels

    def __len__(self) -> int:
        return 1281167

    def __getitem__(self, index: int) -> dict:
        return self.source[index % len(self.source)]


def _ours(source: Source, transform: TrainTransform | WindowTransform, seed: int):
    guarded = SkipCorrupt(AsManyAsImageNet(source), "error")
    return pipeline.train_batches(guarded, transform, batch_size=BATCH, seed=seed)


def transform(on_device: bool) -> TrainTransform:
    """Returns the recipe's transform, without flips and RandAugment if the device does them."""
    recipe = config.default()
    recipe.augment.on_device = on_device
    return TrainTransform(SIZE, recipe.augment, recipe.data.mean)


def window_transform() -> WindowTransform:
    return WindowTransform(SHORT_SIDE, config.default().augment)


def open_folder(root: pathlib.Path) -> Source:
    return sources.ImageFolder(root, "train", images.decode_either)


def open_records(root: pathlib.Path, store: str) -> records.Records:
    return records.Records(root / store, "train", images.decode_either)


def _folder(root: pathlib.Path, seed: int):
    return _ours(open_folder(root), transform(on_device=False), seed)


def _folder_device(root: pathlib.Path, seed: int):
    return _ours(open_folder(root), transform(on_device=True), seed)


def _jpeg_host(root: pathlib.Path, seed: int):
    return _ours(open_records(root, "jpeg"), transform(on_device=False), seed)


def _jpeg_device(root: pathlib.Path, seed: int):
    return _ours(records.Lying(open_records(root, "jpeg")), window_transform(), seed)


def _uint8_device(root: pathlib.Path, seed: int):
    return _ours(records.Lying(open_records(root, "uint8")), window_transform(), seed)


# --- timm's side ---


def _timm(root: pathlib.Path, seed: int):
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

    stacked = torch.zeros((len(rows), *rows[0][0].shape), dtype=torch.uint8)
    for i, (image, _) in enumerate(rows):
        stacked[i] += torch.from_numpy(image)
    return stacked, torch.tensor([label for _, label in rows], dtype=torch.int64)


# Name -> (what makes its batches, batches in a round). A round is long enough that the few batches that grain has
# read ahead at its end, and which count against us, do not matter.
SIDES = {
    "timm": (_timm, 4),
    "folder": (_folder, 4),
    "folder, device": (_folder_device, 8),
    "jpeg records": (_jpeg_host, 8),
    "jpeg records, device": (_jpeg_device, 24),
    "uint8 records, device": (_uint8_device, 96),
}
