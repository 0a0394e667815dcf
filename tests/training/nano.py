"""Recipes that train the smallest SeaFormers on `shapes` in seconds; the tests' own.

    python -m seaformer_jax.train --config tests/training/nano.py --workdir DIR

It registers the models of `tests/toys.py`, and the source `slow_shapes`, which keeps a run going long enough to be
interrupted.
"""

from ml_collections import ConfigDict

from seaformer_jax import config as configs
from seaformer_jax.data.classification import sources
from tests import toys
from tests.training.slow_shapes import SlowShapes


def get_segmentation_config() -> ConfigDict:
    toys.register()
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


def get_detection_config() -> ConfigDict:
    toys.register()
    config = configs.detection()
    config.update_from_flattened_dict(
        {
            "total_steps": 24,
            "batch_size": 16,
            "log_every": 1,
            "model.name": "nano_detection",
            "model.neck_width": 8,
            "model.tower_convs": 1,
            "model.anchor_scale": 2.0,
            "data.image_size": 64,
            "data.scale": (64, 64),
            "data.buckets": ((64, 64),),
            "data.train_size": 72,
            "data.val_size": 37,
            "optim.lr": 1e-3,
            "optim.eps": 1e-2,  # Less, and Adam makes steps of rounding errors.
            "optim.schedule.warmup_steps": 4,
            "eval.scale": (64, 64),
            "eval.every": 10,
            "eval.batch_size": 16,
            "eval.per_image": 1,  # The best box; the order of others may differ by rounding.
            "eval.score_threshold": 0.0,
            "checkpoint.every": 6,
        }
    )
    return config


def get_config() -> ConfigDict:
    toys.register()
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
