"""Distillation on ADE20K at half resolution: the student sees 256 x 256 pixels, its teacher 512 x 512.

    python -m seaformer_jax.train --config configs/distill_ade20k.py:base_4x8 --workdir DIR \\
        --config.data.root=PATH/TO/ADEChallengeData2016 --config.init_from=CLASSIFIER \\
        --config.teacher.source=SeaFormer_L.pth --config.teacher.model=seaformer_large

The part after the colon describes the student, as in configs/ade20k.py; data, schedule and testing are those of
that file. `teacher.source` is the workdir of one of its runs, which needs no `teacher.model`, or an official
checkpoint. `init_from` may also be a segmentation run of the student's size.

Aim: SeaFormer++ reports lower latency at the same mIoU. No figure for this step alone is public, and no run of
full length has been made with this file. configs/ade20k.py has the published mIoU at full resolution.

Meant for one accelerator and 16 CPU cores, or more of both. Time, estimated and not measured: the hours of
configs/ade20k.py for a student that sees a quarter of the pixels, plus the teacher's forward passes.

Source: the SeaFormer++ paper, Figure 5. Its formulas, weights and schedule are not public; these are ours.
"""

from ml_collections import ConfigDict

from configs import ade20k
from seaformer_jax.config import choose, distillation


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of `variant`, which names the student as in configs/ade20k.py."""
    return distillation(ade20k.get_config(choose("configs/distill_ade20k.py", variant, ade20k.VARIANTS)))
