"""ADE20K at half resolution: a student on 256 x 256 pixels, taught by a model that sees 512 x 512.

    python -m seaformer_jax.train --config configs/distill_ade20k.py:base_4x8 --workdir DIR \\
        --config.data.root=PATH/TO/ADEChallengeData2016 --config.init_from=CLASSIFIER \\
        --config.teacher.source=SeaFormer_L.pth --config.teacher.model=seaformer_large

The part after the colon is the student's, as in configs/ade20k.py, whose data, schedule and testing these are.
`teacher.source` is the workdir of one of its runs, which needs no `teacher.model`, or an official checkpoint.
`init_from` may also be a segmentation run of the student's size.

Aim: SeaFormer++ reports less latency at kept mIoU; no figure for this step alone is public, and no run of full length
has been made with this file. The published mIoU at full resolution is in configs/ade20k.py.

Meant for one accelerator and 16 CPU cores, or more of both. Hours, an estimate and not a measurement: those of
configs/ade20k.py for the student at a quarter of the pixels, and the teacher's forward passes.

Source: the SeaFormer++ paper, Figure 5. Formulas, weights and schedule are not public; these are ours.
"""

from ml_collections import ConfigDict

from configs import ade20k
from seaformer_jax.config import choose, distillation


def get_config(variant: str = "") -> ConfigDict:
    return distillation(ade20k.get_config(choose("configs/distill_ade20k.py", variant, ade20k.VARIANTS)))
