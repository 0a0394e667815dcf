"""SeaFormer classification on TrashNet (photos of waste, six classes) or any ImageFolder, for a small machine.

    python -m seaformer_jax.train --config configs/trashnet.py:tiny --workdir runs/trashnet \\
        --config.data.root=PATH/TO/trashnet

`data.root` holds `train/<class>/*.jpg` and `val/<class>/*.jpg`; the number of classes follows from the folders. The
run starts from scratch. To start from ImageNet weights add `--config.init_from=seaformer_tiny.pth` (or a workdir);
the head keeps its fresh values.

Meant for 2 CPU cores and 40 minutes with `tiny`. There is no published SeaFormer score; the aim is 70 % top-1 on
the validation photos from scratch. `experiments/results/trashnet.md` has the measured curve.
"""

from ml_collections import ConfigDict

from seaformer_jax import config as configs


def get_config(variant: str = "tiny") -> ConfigDict:
    """Returns the config of `variant`, a model name without "seaformer_"."""
    config = configs.default()
    config.model.name = f"seaformer_{variant}"
    config.model.drop_path_rate = 0.0
    config.total_steps = 2500
    config.batch_size = 32
    config.log_every = 50
    config.data.source = "folder"
    config.data.root = "data/trashnet"
    config.data.image_size = 128
    config.augment.crop_scale = (0.4, 1.0)
    config.augment.rand_augment = ""
    config.augment.erasing = 0.1
    config.optim.lr = 4e-3
    config.optim.ema_decay = 0.995
    config.optim.schedule.warmup_steps = 250
    config.eval.every = 250
    config.eval.batch_size = 47
    config.checkpoint.every = 250
    return config
