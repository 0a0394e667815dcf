"""ImageNet-1K at half resolution: a student on 112 x 112 pixels, taught by a model that sees 224 x 224.

    python -m seaformer_jax.train --config configs/distill_imagenet.py:tiny --workdir DIR \\
        --config.teacher.source=SeaFormer_L.pth.tar --config.teacher.model=seaformer_large

The part after the colon is the student's, as in configs/imagenet.py, whose data, schedule and rules for other batch
sizes these are. `teacher.source` is the workdir of one of its runs, which needs no `teacher.model`, or an official
checkpoint. The features that teacher and student compare are those of the last stage.

Meant for 8 accelerators and some 64 CPU cores. Hours, an estimate and not a measurement: reading the images takes as
long as with configs/imagenet.py, and is what the small sizes wait for. There is no published score, and no run of
full length has been made with this file.

Source: the SeaFormer++ paper, Figure 5, which distils segmentation models; the rest is ours.
"""

from ml_collections import ConfigDict

from configs import imagenet
from seaformer_jax.config import distillation


def get_config(variant: str = "") -> ConfigDict:
    return distillation(imagenet.get_config(variant))
