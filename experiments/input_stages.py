"""Where the host's time goes for an image: the table of `input_speed`."""

import pathlib
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np
from PIL import Image

from experiments import input_sides as sides
from seaformer_jax.data.classification import augment, records
from seaformer_jax.data.pipeline import stack_rows

_IMAGES, _ROUNDS = 128, 5


class Stopwatch:
    """Adds up the CPU time of stages; `microseconds` are those of an image, the median of all rounds."""

    def __init__(self):
        self._seconds = {}

    def __call__(self, stage: str, work: Callable[[], list]) -> list:
        began = time.process_time()
        result = work()
        self._seconds.setdefault(stage, []).append(time.process_time() - began)
        return result

    def microseconds(self) -> dict[str, float]:
        return {name: 1e6 * statistics.median(values) / _IMAGES for name, values in self._seconds.items()}


def table(root: pathlib.Path) -> list[dict[str, object]]:
    """Returns a row per path of `input_sides`: microseconds of each stage, and the bytes that go to the device."""
    paths = {
        "folder": lambda watch: _to_size(watch, sides.open_folder(root), on_device=False),
        "folder, device": lambda watch: _to_size(watch, sides.open_folder(root), on_device=True),
        "jpeg records": lambda watch: _to_size(watch, sides.open_records(root, "jpeg"), on_device=False),
        "jpeg records, device": lambda watch: _to_window(watch, sides.open_records(root, "jpeg")),
        "uint8 records, device": lambda watch: _to_window(watch, sides.open_records(root, "uint8")),
    }
    rows = []
    for name, run in paths.items():
        watch = Stopwatch()
        for _ in range(_ROUNDS):
            batch = run(watch)
            watch("transfer", lambda batch=batch: jax.block_until_ready(jax.device_put(batch)))
        sizes = sum(array.nbytes for array in batch.values()) / _IMAGES
        found = watch.microseconds()
        stages = {
            stage: round(found.get(stage, 0))
            for stage in ("decode", "crop", "resize", "augment", "batch", "transfer")
        }
        rows.append({"path": name, **stages, "kB to the device": round(sizes / 1000)})
    return rows


def _to_size(watch: Stopwatch, source, on_device: bool) -> dict[str, np.ndarray]:
    """Crops, resizes and augments on the host, stage by stage; returns the batch."""
    transform, rng = sides.transform(on_device), np.random.default_rng(0)
    elements = watch("decode", lambda: [source[i % len(source)] for i in range(_IMAGES)])
    crops = watch("crop", lambda: [_crop(element["image"], rng) for element in elements])
    scaled = watch(
        "resize",
        lambda: [crop.resize((sides.SIZE,) * 2, augment.resampling("random", rng)) for crop in crops],
    )
    if not on_device:
        scaled = watch("augment", lambda: [transform.augment(image, rng) for image in scaled])
    return watch("batch", lambda: stack_rows([{"image": np.asarray(image)} for image in scaled]))


def _crop(image: np.ndarray | Image.Image, rng: np.random.Generator) -> Image.Image:
    return augment.crop(
        image, augment.random_crop_box(*augment.size_of(image), rng, (0.08, 1), (3 / 4, 4 / 3))
    )


def _to_window(watch: Stopwatch, source: records.Records) -> dict[str, np.ndarray]:
    """Crops on the host; returns the batch of windows."""
    transform, rng = sides.window_transform(), np.random.default_rng(0)
    elements = watch("decode", lambda: [source.lying(i % len(source)) for i in range(_IMAGES)])
    crops = watch("crop", lambda: [transform.random_map(element, rng) for element in elements])
    return watch("batch", lambda: transform.stack(crops))
