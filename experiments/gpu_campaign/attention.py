"""The part `attention`: kinds of attention by accuracy, with more steps and larger crops than a CPU can afford."""

import functools
from collections.abc import Sequence

from experiments import attention_recipe, runs, study
from experiments.gpu_campaign.part import Part, Row
from experiments.gpu_campaign.settings import Settings

NOTE = (
    "The recipes of `experiments/attention_recipe.py` as they are, but for the size of the crops: SeaFormer-T with "
    "three stages of attention on CamVid from scratch; mIoU in percent on the 101 validation frames. A difference "
    "below the spread of the seeds is none."
)


def units(settings: Settings) -> dict:
    """Returns the runs of all kinds, one seed after the other, so that a stopped campaign can compare."""
    return {
        f"{kind} seed {seed}": functools.partial(train, kind, seed, settings)
        for seed in settings.seeds
        for kind in attention_recipe.KINDS
    }


def train(kind: str, seed: int, settings: Settings) -> dict:
    """Trains with a kind and a seed, or resumes; returns the score."""
    run = settings.out / f"attention_{kind}_{seed}"
    root = f"--config.data.root={settings.shared / 'data/camvid'}"
    crop = f"--config.data.crop_size={settings.attention_crop}"
    runs.only_train(run, settings.attention.format(kind), root, crop, f"--config.seed={seed}")
    return {"kind": kind, "seed": seed, "mIoU": round(runs.last_scores(run)["mIoU"], 2)}


def summary(rows: Sequence[Row]) -> list[Row]:
    """Returns a row for every kind: its scores, their mean and their spread."""
    scores: study.Scores = {}
    for row in rows:
        scores.setdefault(row["kind"], {})[str(row["seed"])] = row["mIoU"]
    return [{"kind": f"`{kind}`", **study.cells(by_seed)} for kind, by_seed in scores.items()]


PART = Part(NOTE, units, summary)
