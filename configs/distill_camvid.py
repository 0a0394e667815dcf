"""Distillation on CamVid at half resolution: the student sees 240 x 180 pixels, its teacher 480 x 360.

    python -m seaformer_jax.train --config configs/distill_camvid.py:tiny --workdir runs/distill_camvid \\
        --config.data.root=PATH/TO/camvid --config.teacher.source=runs/camvid --config.init_from=runs/camvid

The part after the colon is the student's size: `tiny`, `small`, `base` or `large`. `teacher.source` is the workdir of
a run of configs/camvid.py, of any size. `init_from` is a classifier, as in that file, or the teacher if both have the
same size, which gives a higher score. Data, schedule and testing are those of configs/camvid.py. Crops and frames
keep the teacher's size, and the student sees them at half of it. `--config.model.upsample_ratio` sets another ratio,
which has to divide the crop into multiples of 8.

Meant for 2 CPU cores and 60 minutes with `tiny`. The aim is 2 points of mIoU more than the same student without a
teacher, which is `--config.distillation.feature_weight=0`; experiments/results/distillation.md has what was reached.

Source: the SeaFormer++ paper, which distils like this with four terms; its weights and schedule are not public. Of
our three distillation terms only the feature distance improved the score here, so the other two are off
(experiments/results/distillation_terms.md).
"""

from ml_collections import ConfigDict

from configs import camvid
from seaformer_jax.config import choose, distillation


def get_config(variant: str = "tiny") -> ConfigDict:
    """Returns the config of `variant`, the size of the student."""
    config = distillation(camvid.get_config(choose("configs/distill_camvid.py", variant, camvid.SIZES)))
    config.distillation.cross_weight = config.distillation.output_weight = 0.0
    return config
