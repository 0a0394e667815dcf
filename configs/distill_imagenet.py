"""Distillation on ImageNet-1K at half resolution: the student sees 112 x 112 pixels, its teacher 224 x 224.

    python -m seaformer_jax.train --config configs/distill_imagenet.py:tiny --workdir DIR \\
        --config.teacher.source=SeaFormer_L.pth.tar --config.teacher.model=seaformer_large

The part after the colon describes the student, as in configs/imagenet.py; data, schedule and the rules for other
batch sizes are those of that file. `teacher.source` is the workdir of one of its runs, which needs no
`teacher.model`, or an official checkpoint. Teacher and student compare the features of the last stage.

Meant for 8 accelerators and some 64 CPU cores. Time, estimated and not measured: reading the images takes as long as
with configs/imagenet.py, and it is what limits the small sizes. There is no published score, and no run of full
length has been made with this file.

Source: the SeaFormer++ paper, Figure 5, which distils segmentation models; the rest is ours.
"""

from ml_collections import ConfigDict

from configs import imagenet
from seaformer_jax.config import distillation


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of `variant`, which names the student as in configs/imagenet.py."""
    return distillation(imagenet.get_config(variant))
