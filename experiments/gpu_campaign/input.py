"""The part `input`: JPEG files to the device with all cores, for the ImageNet recipe."""

import functools
import itertools
import time

from absl import flags

from experiments import measure as helpers
from experiments import runs
from experiments.gpu_campaign import photos, recipe_step
from experiments.gpu_campaign.part import Part
from experiments.gpu_campaign.settings import Settings
from seaformer_jax import tasks
from seaformer_jax.data.shapes import CLASS_NAMES

NOTE = (
    "Images per second of the ImageNet recipe from JPEG files (`shapes` at the size of photographs, quality 90, in "
    "the page cache): the input pipeline alone with one worker process per core, the compiled step alone on a batch "
    "that is on the device, and both together in `seaformer_jax.train`. `data_share` is the share of the time that "
    "training waits for its next batch."
)


def units(settings: Settings) -> dict:
    return {
        "together": functools.partial(together, settings),
        "pipeline": functools.partial(pipeline, settings),
        "step": functools.partial(step, settings),
    }


def together(settings: Settings) -> dict:
    """Returns the row of a training from JPEG files; the first of its five windows is not counted."""
    recipe, batch, steps = settings.input
    every = steps // 5
    keys = _data(settings) | {"batch_size": batch, "total_steps": 5 * every, "log_every": every}
    keys |= {"dtype": "bfloat16", "optim.schedule.warmup_steps": 1, "eval.every": 0, "checkpoint.every": 0}
    run = settings.out / "input"
    changes = (f"--config.{key}={value}" for key, value in keys.items())
    runs.only_train(run, recipe, *changes)
    windows = [row for row in runs.curve(run) if "train/data_share" in row][1:]
    # The windows have equally many images, so that their times are proportional to the inverse of the speed.
    times = [1 / row["train/images_per_second"] for row in windows]
    waiting = sum(row["train/data_share"] * t for row, t in zip(windows, times, strict=True))
    return _row("together", settings, len(times) / sum(times), waiting / sum(times))


def pipeline(settings: Settings) -> dict:
    """Returns the row of the input pipeline alone."""
    recipe, batch, _ = settings.input
    config = recipe_step.read(recipe, batch)
    config.update_from_flattened_dict(_data(settings))
    flags.FLAGS.mark_as_parsed()  # Grain's workers read flags of absl, which commands parse.
    workers = helpers.cores()
    batches = tasks.create(config).train_batches(0)
    # A worker makes whole batches: until each has made one, they start.
    list(itertools.islice(batches, workers))
    began = time.perf_counter()
    list(itertools.islice(batches, 3 * workers))
    seconds = time.perf_counter() - began
    batches.close()
    return _row("pipeline alone", settings, 3 * workers * batch / seconds)


def step(settings: Settings) -> dict:
    """Returns the row of the compiled step alone."""
    recipe, batch, _ = settings.input
    compiled = recipe_step.compile_step(recipe_step.read(recipe, batch), len(CLASS_NAMES))
    return _row("step alone", settings, batch / recipe_step.seconds_of(compiled, settings.rounds))


def _data(settings: Settings) -> dict:
    """Writes the images if need be; returns the keys of the config that read them."""
    root = photos.write(settings.out / "photos", *settings.photos)
    return {
        "data.source": "folder",
        "data.root": str(root),
        "data.train_split": "train",
        "data.val_split": "val",
        "data.workers": helpers.cores(),
    }


def _row(what: str, settings: Settings, images_per_second: float, data_share: float | str = "") -> dict:
    recipe, batch, _ = settings.input
    row = {"what": what, "recipe": recipe, "batch": batch, "workers": helpers.cores()}
    return row | {"images/s": images_per_second, "data_share": data_share}


PART = Part(NOTE, units)
