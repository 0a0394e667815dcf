"""The part `large_batch`: RMSpropTF, LAMB and LARS at equal epochs, from small batches to large ones.

| optimiser | learning rate | at | rule | the rest |
|---|---:|---:|---|---|
| RMSpropTF | 0.064 | 1024 | linear | momentum 0.9, eps 1e-3, weight decay 2e-5 |
| LAMB | 0.02 | 8192 | square root | weight decay 1.5, eps 1e-6, gradients clipped to norm 1 |
| LARS | 16 | 8192 | square root | momentum 0.9, weight decay 1e-4 |

These are the settings of configs/imagenet.py, which has their sources, and they are read from there. Equal for all
are the model, the images, the epochs, the warm-up in a tenth of the steps and then half a cosine to 0, BatchNorm over
groups of at most 128 images, and weights that are not averaged, because averages lag behind where steps are few.
"""

import functools
from collections.abc import Sequence
from typing import Any

from configs import imagenet
from experiments import measure as helpers
from experiments import runs
from experiments.gpu_campaign.part import Part, Row
from experiments.gpu_campaign.settings import Scaling, Settings

NOTE = (
    "Top-1 in percent on the validation images at equal epochs. Rates and rules are those of `configs/imagenet.py`: "
    "RMSpropTF 0.064 at 1024, linear in the batch; LAMB 0.02 and LARS 16 at 8192, with the square root of the batch. "
    "Warm-up in a tenth of the steps, then a cosine to 0. A run that diverged is listed as failed. "
    "`experiments/gpu_campaign/large_batch.py`"
)
# Optimiser -> variant of configs/imagenet.py, and the keys of `optim` that are taken from it.
VARIANTS = {"rmsprop_tf": "", "lamb": ",lamb", "lars": ",lars"}
OPTIMISER = ("name", "lr", "weight_decay", "momentum", "eps", "clip_norm")


def units(settings: Settings) -> dict:
    return {
        f"{data} {batch} {optimiser}": functools.partial(train, data, batch, optimiser, settings)
        for data, scaling in settings.scaling.items()
        for batch in scaling.batches
        for optimiser in VARIANTS
    }


def train(data: str, batch: int, optimiser: str, settings: Settings) -> dict:
    """Trains, or resumes; returns the score of one data set, batch size and optimiser."""
    scaling = settings.scaling[data]
    keys = config_of(scaling, batch, optimiser)
    if data != "shapes":
        keys["data.root"] = settings.shared / "data" / data
    run = settings.out / f"large_batch_{data}_{batch}_{optimiser}"
    runs.only_train(run, scaling.recipe, *(f"--config.{key}={value}" for key, value in keys.items()))
    return {
        "data": data,
        "epochs": scaling.epochs,
        "batch": batch,
        "optimiser": optimiser,
        "steps": keys["total_steps"],
        "rate": keys["optim.lr"],
        "top1": round(runs.last_scores(run)["top1"], 2),
    }


def config_of(scaling: Scaling, batch: int, optimiser: str) -> dict[str, Any]:
    """Returns the keys of the config that differ from the recipe of the data set."""
    steps = max(round(scaling.epochs * scaling.images / batch), 10)
    tenth = steps // 10
    official = imagenet.get_config(f"tiny{VARIANTS[optimiser]}")
    official.batch_size = batch
    keys = {f"optim.{key}": official.optim[key] for key in OPTIMISER}
    keys |= {"batch_size": batch, "total_steps": steps, "model.bn_groups": official.model.bn_groups}
    keys |= {"optim.schedule.name": "cosine", "optim.schedule.warmup_steps": tenth, "optim.ema_decay": 0.0}
    # A run that is stopped loses a tenth of its steps at most, and it is judged at its end.
    keys |= {"checkpoint.every": tenth, "eval.every": 0, "log_every": tenth}
    return keys | {"dtype": "bfloat16", "data.workers": helpers.cores()} | scaling.flags


def summary(rows: Sequence[Row]) -> list[Row]:
    """Returns the scores side by side: a row for every data set and batch size, a column for every optimiser."""
    table = {}
    for row in sorted(rows, key=lambda row: (row["data"], row["batch"])):
        run = {key: row[key] for key in ("data", "epochs", "batch", "steps")}
        line = table.setdefault((row["data"], row["batch"]), run | dict.fromkeys(VARIANTS, ""))
        line[row["optimiser"]] = row["top1"]
    return list(table.values())


PART = Part(NOTE, units, summary)
