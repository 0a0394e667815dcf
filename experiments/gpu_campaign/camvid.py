"""The part `camvid`: the CamVid recipe with several seeds."""

import functools
import statistics
from collections.abc import Sequence

from experiments import runs
from experiments.gpu_campaign.part import Part, Row
from experiments.gpu_campaign.settings import Settings

NOTE = (
    "The recipe as it is (`configs/camvid.py:tiny`), once with each seed; scores in percent on the 101 validation "
    "frames. The spread is the standard deviation of the sample."
)
SCORES = ("mIoU", "mAcc", "aAcc")


def units(settings: Settings) -> dict:
    return {f"seed {seed}": functools.partial(train, seed, settings) for seed in settings.seeds}


def train(seed: int, settings: Settings) -> dict:
    """Trains with a seed, or resumes; returns the scores of the last weights and the speed."""
    start = f"--config.init_from={settings.init}"
    root = f"--config.data.root={settings.shared / 'data/camvid'}"
    run = settings.out / f"camvid_{seed}"
    runs.only_train(run, settings.camvid, root, start, f"--config.seed={seed}")
    speed = [row for row in runs.curve(run) if "train/images_per_second" in row][-1]
    return {
        "seed": seed,
        "start": settings.init or "scratch",
        **{name: round(runs.last_scores(run)[name], 2) for name in SCORES},
        "images/s": speed["train/images_per_second"],
        "data_share": speed["train/data_share"],
    }


def summary(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows, and those of the means and spreads of their scores."""
    found = list(rows)
    for what, of in (("mean", statistics.mean), ("spread", statistics.stdev)):
        if len(rows) > 1:
            found.append(dict.fromkeys(rows[0], "") | {"seed": what} | _of_scores(rows, of))
    return found


def _of_scores(rows: Sequence[Row], function) -> Row:
    return {name: round(function([row[name] for row in rows]), 2) for name in SCORES}


PART = Part(NOTE, units, summary)
