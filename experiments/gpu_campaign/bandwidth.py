"""The part `bandwidth`: the recipes' steps against the time that their memory traffic takes at least."""

import functools
import time

from experiments import sides, step_floor
from experiments.gpu_campaign import recipe_step
from experiments.gpu_campaign.part import Part
from experiments.gpu_campaign.settings import Settings

NOTE = (
    "Steps of the recipes as `train` runs them, with augmentation on the device, the recipe's optimiser and averaged "
    "weights, in bfloat16. The floor is the step's bytes over the bandwidth of a large copy, and the share is the "
    "floor over the measured time. `experiments/step_floor.py`"
)


def units(settings: Settings) -> dict:
    return {
        f"{task} {model}": functools.partial(measure, model, task, settings)
        for model in settings.models
        for task in settings.recipes
    }


def measure(model: str, task: str, settings: Settings) -> dict:
    """Returns the row of one recipe: bytes, floor, time and memory of a step on one device."""
    recipe, batch = settings.recipes[task]
    recipe = recipe.format(model.removeprefix("seaformer_"))
    began = time.monotonic()
    step = recipe_step.compile_step(recipe_step.read(recipe, batch), sides.CLASSES[task])
    compiled_in = time.monotonic() - began
    moved, bandwidth = step_floor.bytes_moved(step.compiled), step_floor.bandwidth(settings.copied_megabytes)
    seconds = recipe_step.seconds_of(step, settings.rounds)
    return {
        "recipe": recipe,
        "batch": batch,
        "GB a step": moved / 1e9,
        "copy TB/s": bandwidth / 1e12,
        "floor ms": 1e3 * moved / bandwidth,
        "step ms": 1e3 * seconds,
        "images/s": batch / seconds,
        "share of floor": moved / bandwidth / seconds,
        "temporaries MB": step.compiled.memory_analysis().temp_size_in_bytes / 1e6,
        "compiled in s": compiled_in,
    }


PART = Part(NOTE, units)
