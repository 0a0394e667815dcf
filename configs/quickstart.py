"""SeaFormer-Tiny on the procedural `shapes` images: a first run of a few minutes on two CPU cores.

    python -m seaformer_jax.train --config configs/quickstart.py --workdir runs/quickstart

The data are eight classes of geometric objects on textured backgrounds at 64 x 64 pixels; chance is 12.5 %. The run
reaches 76 % top-1 on the validation split, and more steps improve it further. There is no published score.
"""

from ml_collections import ConfigDict

from seaformer_jax import config as configs


def get_config(variant: str = "tiny") -> ConfigDict:
    """Returns the config of `variant`, a model name without "seaformer_"."""
    config = configs.default()
    config.model.name = f"seaformer_{variant}"
    config.model.drop_path_rate = 0.0
    config.total_steps = 1000
    config.batch_size = 64
    config.log_every = 20
    config.data.image_size = 64
    config.data.train_size = 8192
    config.data.val_size = 512
    config.augment.crop_scale = (1.0, 1.0)
    config.augment.crop_ratio = (1.0, 1.0)
    config.task.label_smoothing = 0.0
    config.augment.rand_augment = ""
    config.augment.erasing = 0.0
    config.optim.lr = 4e-3
    config.optim.ema_decay = 0.95
    config.optim.schedule.warmup_steps = 100
    config.eval.every = 250
    config.eval.batch_size = 64
    config.eval.crop_fraction = 1.0
    config.checkpoint.every = 250
    return config
