"""JPEG files of the size of photographs, made of `shapes`, for measurements of the input pipeline."""

import concurrent.futures
import functools
import multiprocessing
import pathlib

from PIL import Image

from experiments import measure
from seaformer_jax.data.shapes import CLASS_NAMES, Shapes

SPLITS = {"train": 1.0, "val": 1 / 64}  # Split -> its share of the images.


def write(root: pathlib.Path, count: int, side: int) -> pathlib.Path:
    """Writes <root>/{train,val}/<class>/*.jpg with all cores, unless they are there; returns `root`.

    Args:
        root: Folder of the data set.
        count: Images of the training split.
        side: Height and width of an image in pixels.
    """
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(measure.cores(), context) as pool:
        for split, share in SPLITS.items():
            images = max(round(share * count), len(CLASS_NAMES))
            for name in CLASS_NAMES:
                (root / split / name).mkdir(parents=True, exist_ok=True)
            write_one = functools.partial(_write_one, root / split, Shapes(split, images, side))
            list(pool.map(write_one, range(images), chunksize=16))
    return root


def _write_one(folder: pathlib.Path, source: Shapes, index: int) -> None:
    # The label is not the shape in the image: every class must have images, and nothing is learnt from them.
    path = folder / CLASS_NAMES[index % len(CLASS_NAMES)] / f"{index}.jpg"
    if not path.exists():
        unfinished = path.with_suffix(".tmp")
        Image.fromarray(source[index]["image"]).save(unfinished, "JPEG", quality=90)
        unfinished.replace(path)
