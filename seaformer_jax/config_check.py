"""The allowed ranges of config values, so that a wrong value is an error at the start and not a crash at step 500."""

import functools
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from seaformer_jax.errors import UserError

# A test of a value, and the description of the values that pass it.
Range = tuple[Callable[[Any], bool], str]


def check(config: ConfigDict) -> None:
    """Checks the values of `config` against their ranges.

    Names (of models, sources, optimisers, ...) and patterns are checked where they are used.

    Raises:
        UserError: A value is outside its range, or contradicts another value.
    """
    # 1. Single values.
    for keys, (holds, expected) in _RANGES.items():
        for key in keys.split():
            *sections, name = key.split(".")
            section = functools.reduce(lambda record, key: record.get(key, {}), sections, config)
            # A missing key belongs to another task's config.
            if name in section and not holds(section[name]):
                raise UserError(f"{key} is {section[name]!r}; expected {expected}")
    # 2. Values that depend on each other.
    if "slide_crop" in config.eval and any(
        step > crop for step, crop in zip(config.eval.slide_stride, config.eval.slide_crop, strict=True)
    ):
        raise UserError(
            f"eval.slide_stride is {config.eval.slide_stride!r}; expected at most eval.slide_crop, "
            f"{config.eval.slide_crop!r}, so that no pixel is left out"
        )
    if "distillation" in config:
        _check_ratio(config)
    images = config.batch_size // config.optim.accumulate
    if images % config.model.bn_groups:
        raise UserError(
            f"model.bn_groups is {config.model.bn_groups}; expected a divisor of {images}, the images that the "
            "model sees at once (batch_size / optim.accumulate)"
        )


def _check_ratio(config: ConfigDict) -> None:
    """Checks that the student's images have whole pixels and, in segmentation, whole cells of 8 x 8 pixels.

    Segmentation logits are at 1/8, and the distillation terms compare them with the labels cell by cell.
    """
    segments = "crop_size" in config.data
    key, sides = (
        ("crop_size", config.data.crop_size) if segments else ("image_size", (config.data.image_size,))
    )
    ratio, multiple = config.model.upsample_ratio, 8 if segments else 1
    if ratio < 1 or any(side / ratio % multiple or side / ratio < _SMALLEST for side in sides):
        raise UserError(
            f"model.upsample_ratio is {ratio!r}; expected a number of at least 1 that divides data.{key}, "
            f"{config.data[key]!r}, into {f'multiples of {multiple}' if segments else 'whole numbers'} of at least "
            f"{_SMALLEST} pixels"
        )


def _at_least(least: int) -> Range:
    return lambda value: value >= least, f"at least {least}"


def _rising(value: tuple) -> bool:
    return len(value) == 2 and 0 < value[0] <= value[1]


def _two_lengths(value: tuple) -> bool:
    return len(value) == 2 and min(value) >= 1


# Pixels along a side of an image. At this size the feature maps at 1/32 and 1/64 are a single position.
_SMALLEST = 32

_RANGES: dict[str, Range] = {
    # These come first, because recipes compute other values from them.
    "batch_size optim.accumulate": _at_least(1),
    "total_steps log_every model.bn_groups augment.mix_group": _at_least(1),
    "eval.batch_size checkpoint.keep data.train_size data.val_size": _at_least(1),
    "eval.every checkpoint.every data.workers task.num_classes": _at_least(0),
    "augment.mixup augment.cutmix": _at_least(0),
    "optim.weight_decay optim.clip_norm optim.schedule.warmup_steps": _at_least(0),
    "optim.lr optim.schedule.hold_steps optim.schedule.decay_steps optim.schedule.noise_limit": (
        lambda v: v > 0,
        "a number above 0",
    ),
    "data.image_size": _at_least(_SMALLEST),
    "distillation.cross_weight distillation.feature_weight distillation.output_weight": _at_least(0),
    "distillation.temperature": (lambda v: v > 0, "a number above 0"),
    "augment.flip augment.erasing": (lambda v: 0 <= v <= 1, "a number in [0, 1]"),
    "model.drop_path_rate task.label_smoothing": (lambda v: 0 <= v < 1, "a number in [0, 1)"),
    "optim.ema_decay optim.momentum": (lambda v: 0 <= v < 1, "a number in [0, 1)"),
    "eval.crop_fraction": (lambda v: 0 < v <= 1, "a number in (0, 1]"),
    "eval.size_divisor": _at_least(0),
    "augment.cat_max_ratio": (lambda v: 0 < v <= 1, "a number in (0, 1]"),
    "augment.scale_range": (_rising, "two factors, the lower one first, such as (0.5, 2.0)"),
    "data.base_scale eval.scale": (_two_lengths, "the long and the short side, such as (2048, 512)"),
    "data.crop_size": (
        # Logits are at 1/8, and the loss up-samples them by exactly 8.
        lambda v: _two_lengths(v) and min(v) >= _SMALLEST and not any(side % 8 for side in v),
        "height and width, multiples of 8 and at least 32, such as (512, 512)",
    ),
    "eval.slide_crop eval.slide_stride": (_two_lengths, "two lengths in pixels, such as (512, 512)"),
    "eval.scales": (lambda v: len(v) > 0 and min(v) > 0, "positive factors, such as (1.0,)"),
    "eval.mode": (lambda v: v in ("whole", "slide"), "whole or slide"),
    "task.loss_divisor": (lambda v: v in ("all", "valid"), "all or valid"),
    "augment.crop_scale": (
        lambda v: _rising(v) and v[1] <= 1,
        "two shares of the image's area, the lower one first, such as (0.08, 1.0)",
    ),
    "augment.crop_ratio": (_rising, "two ratios width / height, the lower one first, such as (0.75, 1.33)"),
    "data.mean": (lambda v: len(v) == 3, "three numbers: red, green, blue"),
    "data.std": (lambda v: len(v) == 3 and min(v) > 0, "three positive numbers: red, green, blue"),
    "dtype": (lambda v: v in ("float32", "bfloat16"), "float32 or bfloat16"),
}
