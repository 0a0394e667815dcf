"""Distillation on Cityscapes at half resolution: the student sees half the height and width that its teacher sees.

    python -m seaformer_jax.train --config configs/distill_cityscapes.py:small_1024x1024 --workdir DIR \\
        --config.data.root=PATH/TO/cityscapes --config.init_from=CLASSIFIER \\
        --config.teacher.source=SeaFormer_B.pth --config.teacher.model=seaformer_base

The part after the colon is the student's size and the teacher's resolution, as in configs/cityscapes.py; data,
schedule and testing are those of that file. With `_1024x1024` the student sees frames of 1024 x 512, with `_1024x512`
frames of 512 x 256. `teacher.source` is the workdir of a run of that file, which needs no `teacher.model`, or an
official checkpoint of the same resolution.

Aim: more than the mIoU that configs/cityscapes.py lists for the resolution that the student sees. No run of full
length has been made with this file.

Meant for one to eight accelerators and 16 CPU cores. Time, estimated and not measured: the hours of
configs/cityscapes.py for a student that sees a quarter of the pixels, plus the teacher's forward passes. Reading the
frames takes as long as with that file.

Source: the SeaFormer++ paper, Figure 5. Its formulas, weights and schedule are not public; these are ours.
"""

from ml_collections import ConfigDict

from configs import cityscapes
from seaformer_jax.config import choose, distillation


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of `variant`, the student's size and the teacher's resolution."""
    variant = choose("configs/distill_cityscapes.py", variant, cityscapes.VARIANTS)
    return distillation(cityscapes.get_config(variant))
