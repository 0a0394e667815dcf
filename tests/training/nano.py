"""A recipe that trains the smallest SeaFormer on `shapes` in seconds; the tests' own.

    python -m seaformer_jax.train --config tests/training/nano.py --workdir DIR

It registers the model `nano`, which has one of everything: inverted residual, SEA attention, FFN, drop path. The
source `slow_shapes` keeps a run going long enough to be interrupted.
"""

from ml_collections import ConfigDict

from seaformer_jax import config as configs
from seaformer_jax.data import sources
from seaformer_jax.models.variants import VARIANTS, Mobile, SeaFormerConfig
from tests.training.slow_shapes import SlowShapes

NANO = SeaFormerConfig(
    stem=8,
    stages=((Mobile(3, 2, 8, 2),),),
    depths=(2,),
    key_dims=(4,),
    ffn_ratios=(2,),
    heads=2,
)


def get_config() -> ConfigDict:
    VARIANTS["nano"] = NANO
    sources._SOURCES["slow_shapes"] = lambda config, split: SlowShapes(
        split, config[f"{split}_size"], config.image_size
    )
    config = configs.default()
    config.total_steps = 24
    config.batch_size = 16
    config.log_every = 1
    config.model.name = "nano"
    config.model.drop_path_rate = 0.5
    config.data.image_size = 32
    config.data.train_size = 72  # Four and a half batches: epochs end within batches.
    config.data.val_size = 37
    config.augment.erasing = 0.0  # Drop path is draws enough, and compiles sooner.
    config.optim.name = "rmsprop_tf"
    config.optim.lr = 2e-3  # More, and rounding errors grow from step to step.
    config.optim.eps = 1e-3
    config.optim.weight_decay = 1e-4
    config.optim.ema_decay = 0.9
    config.optim.schedule.warmup_steps = 4
    config.eval.every = 10
    config.eval.batch_size = 16
    config.checkpoint.every = 6
    return config
