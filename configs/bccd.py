"""Detection of blood cells (BCCD: red cells, white cells and platelets) on a small machine.

    python -m seaformer_jax.train --config configs/bccd.py:tiny --workdir runs/bccd --config.data.root=PATH/TO/bccd

The part after the colon is a size: `tiny`, `small`, `base` or `large`. `data.root` holds `images/{train,val}` and
`annotations/instances_{train,val}.json` in COCO's format: 205 and 87 images of 640 x 480 pixels with 2804 and 1137
boxes (github.com/Shenggan/BCCD_Dataset). The run starts from the weights `camvid` of the package, which fit `tiny`;
set `init_from` to a workdir or a checkpoint for another size, or to "" for a start from scratch.

Meant for 2 CPU cores without other work and about an hour with `tiny`. There is no published SeaFormer score; the aim
is 80 % AP50 and 45 % AP on `val`, which the run passes after 220 steps. `experiments/results/bccd.md` has the
measured curve.

Source: mmdetection's RetinaNet with a narrow neck and head, at 512 x 384 pixels. At half of that size most platelets
overlap no anchor by 0.5. The images have no right way up, hence the vertical flips.
"""

from ml_collections import ConfigDict

from seaformer_jax import config as configs

SIZES = ("tiny", "small", "base", "large")


def get_config(variant: str = "tiny") -> ConfigDict:
    """Returns the config of `variant`, a size."""
    config = configs.detection()
    config.model.name = f"seaformer_{configs.choose('configs/bccd.py', variant, SIZES)}"
    config.model.neck_width = 64
    config.model.tower_convs = 2
    config.model.drop_path_rate = 0.0
    config.init_from = "camvid"
    config.total_steps = 2200
    config.batch_size = 4
    config.log_every = 20
    config.data.source = "coco"
    config.data.root = "data/bccd"
    config.data.images = "images/{split}"
    config.data.train_split, config.data.val_split = "train", "val"
    config.data.scale = (512, 384)
    config.data.buckets = ((384, 512),)
    config.data.max_boxes = 40
    config.augment.scale_range = (0.8, 1.25)
    config.augment.flip_vertical = 0.5
    config.augment.photometric = True
    config.optim.lr = 7e-4
    config.optim.weight_decay = 0.05
    config.optim.clip_norm = 10.0
    config.optim.ema_decay = 0.998
    config.optim.schedule.name = "cosine"
    config.optim.schedule.warmup_steps = 100
    config.eval.scale = (512, 384)
    config.eval.every = 220
    config.eval.batch_size = 8
    config.checkpoint.every = 220
    return config
