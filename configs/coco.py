"""Object detection on COCO 2017: RetinaNet, 80 classes, 12 epochs.

    python -m seaformer_jax.train --config configs/coco.py:tiny --workdir runs/coco \\
        --config.data.root=PATH/TO/coco --config.init_from=CLASSIFIER

The part after the colon is a size (`tiny`, `small`, `base` or `large`); `,sgd` after it takes SGD in place of AdamW.
`data.root` holds `train2017`, `val2017` and `annotations/instances_{train,val}2017.json`. With
`--config.data.source=tfds` it is the data_dir in which TensorFlow Datasets prepared `coco/2017`. `init_from` is the
workdir of an ImageNet run or an official checkpoint.

Aim: the AP on `val2017` of the papers' table, 31.5 for `tiny`. The authors published neither code nor a config, so
which optimiser they used is unknown: try both with `tiny` and keep the better.

Meant for 8 accelerators with 2 images each and 16 CPU cores; 16 is the global batch. Twelve epochs are 1.4 million
images. No run with this file has been made yet.

Source: mmdetection's `retinanet_r50_fpn_1x_coco.py` with the optimiser of PVT's detection configs (AdamW at 1e-4,
weight decay 1e-4 on all parameters). Differences: BatchNorm takes the statistics of the global batch instead of those
of the starting weights (`task.batch_statistics`), because frozen ones cost a detector with such a small backbone
several points in a user's run of TopFormer; no stage is frozen; the loss is divided by the positives of the global
batch instead of those of two images; SGD has Nesterov's momentum.
"""

from ml_collections import ConfigDict

from seaformer_jax import config as configs

SIZES = ("tiny", "small", "base", "large")
VARIANTS = tuple(size + optimizer for size in SIZES for optimizer in ("", ",sgd"))
_EPOCH = 7330  # Steps: 117,266 images with boxes, in batches of 16 that are all landscape or all portrait.


def get_config(variant: str = "tiny") -> ConfigDict:
    """Returns the config of `variant`, a size, with ",sgd" or without."""
    size, _, optimizer = configs.choose("configs/coco.py", variant, VARIANTS).partition(",")
    config = configs.detection()
    config.model.name = f"seaformer_{size}"
    config.total_steps = 12 * _EPOCH
    config.batch_size = 16
    if optimizer:
        config.optim.update({"name": "sgd", "lr": 0.01})
    config.optim.schedule.milestones = (8 * _EPOCH, 11 * _EPOCH)
    config.data.update({"source": "coco", "root": "data/coco", "workers": 16})
    config.data.update({"train_split": "train2017", "val_split": "val2017"})
    config.data.update({"scale": (1333, 800), "buckets": ((800, 1344), (1344, 800))})
    # Five shapes to compile. mmdetection pads to multiples of 32, and its models notice that; this one does not.
    config.eval.update({"scale": (1333, 800), "pad_multiple": 224, "every": _EPOCH, "batch_size": 8})
    config.checkpoint.every = _EPOCH
    return config
