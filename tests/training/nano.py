"""Recipes that train the smallest SeaFormers on `shapes` in seconds; the tests' own.

    python -m seaformer_jax.train --config tests/training/nano.py --workdir DIR

It registers the model `nano`, which has one of everything: inverted residual, SEA attention, FFN, drop path, and
`nano_segmentation`, which has the map at 1/8 and the fusion blocks that segmentation needs. The source `slow_shapes`
keeps a run going long enough to be interrupted.
"""

from ml_collections import ConfigDict

from seaformer_jax import config as configs
from seaformer_jax.data.classification import sources
from seaformer_jax.models.variants import VARIANTS, InvertedResidualSpec, SeaFormerConfig
from tests.training.slow_shapes import SlowShapes

NANO = SeaFormerConfig(
    stem=8,
    stages=((InvertedResidualSpec(3, 2, 8, 2),),),
    depths=(2,),
    key_dims=(4,),
    ffn_ratios=(2,),
    heads=2,
)

NANO_SEGMENTATION = SeaFormerConfig(
    stem=8,
    stages=(
        (InvertedResidualSpec(3, 1, 8, 2),),
        (InvertedResidualSpec(3, 1, 8, 2),),
        (InvertedResidualSpec(3, 1, 12, 2),),
    ),
    depths=(1,),
    key_dims=(4,),
    ffn_ratios=(2,),
    heads=2,
    fusion_widths=(8,),
)


def get_segmentation_config() -> ConfigDict:
    VARIANTS["nano_segmentation"] = NANO_SEGMENTATION
    config = configs.segmentation()
    config.update_from_flattened_dict(
        {
            "total_steps": 24,
            "batch_size": 16,
            "log_every": 1,
            "model.name": "nano_segmentation",
            "data.image_size": 32,
            "data.base_scale": (32, 32),
            "data.crop_size": (32, 32),
            "data.train_size": 72,
            "data.val_size": 37,
            "optim.lr": 1e-3,
            "optim.eps": 1e-2,  # Less, and Adam makes steps of rounding errors.
            "optim.schedule.warmup_steps": 4,
            "eval.scale": (32, 32),
            "eval.every": 10,
            "eval.batch_size": 16,
            "checkpoint.every": 6,
        }
    )
    return config


def get_config() -> ConfigDict:
    VARIANTS["nano"] = NANO
    sources._SOURCES["slow_shapes"] = lambda config, split, _: SlowShapes(
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
