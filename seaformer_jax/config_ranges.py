"""The table of the config's keys: the type and the range of every value.

`config_check.py` holds every config against it. Names of models, sources and the like are only strings here; the
module that owns the list of names refuses an unknown one.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

# A test of a value, and the description of the values that pass it. A test takes a value of any type.
Range = tuple[Callable[[Any], bool], str]

# Pixels along a side of an image. At this size the feature maps at 1/32 and 1/64 are a single position.
SMALLEST = 32
# Most pixels along a side of the model's input. One feature map of a larger image would not fit into memory.
LARGEST = 8192

_MOST_INT32 = 2**31 - 1  # Steps and sizes are int32 on the device.


def _is_whole(value: Any) -> bool:
    # True and False are integers in Python.
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    """Returns whether `value` is a finite number."""
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_list(holds: Callable[[Any], bool], length: int | None = None) -> Callable[[Any], bool]:
    """Returns the test of a tuple of `length` items (None: any number) that all pass `holds`."""

    def test(value: Any) -> bool:
        return isinstance(value, tuple | list) and length in (None, len(value)) and all(map(holds, value))

    return test


def _whole(least: int, most: int = _MOST_INT32) -> Range:
    bounds = f"of at least {least}, below 2^31" if most == _MOST_INT32 else f"in [{least}, {most}]"
    return lambda value: _is_whole(value) and least <= value <= most, f"a whole number {bounds}"


def _number(least: float, most: float = math.inf) -> Range:
    expected = (
        f"a finite number of at least {least}" if most == math.inf else f"a number in [{least}, {most}]"
    )
    return lambda value: _is_number(value) and least <= value <= most, expected


def _positive(most: float = math.inf) -> Range:
    expected = "a finite number above 0" if most == math.inf else f"a number in (0, {most}]"
    return lambda value: _is_number(value) and 0 < value <= most, expected


def _one_of(names: Sequence[str]) -> Range:
    return lambda value: value in names, f"{', '.join(names[:-1])} or {names[-1]}"


def _rising(most: float, expected: str) -> Range:
    """Returns the range of two numbers in (0, most], the lower one first."""
    pair = _is_list(_positive(most)[0], 2)
    return lambda value: pair(value) and value[0] <= value[1], f"{expected}, the lower one first"


def _sides(least: int, expected: str, multiple: int = 1, most: int = _MOST_INT32) -> Range:
    """Returns the range of two lengths in pixels."""
    return _is_list(lambda side: _whole(least, most)[0](side) and side % multiple == 0, 2), expected


def _names(value: Any) -> bool:
    """Returns whether `value` holds the names of no classes, or of at least two different ones."""
    return _is_list(_is_text)(value) and all(value) and len(set(value)) == len(value) != 1


def _values(value: Any) -> bool:
    """Returns whether `value` holds pairs of bytes, and no first one twice."""
    byte = _whole(0, 255)[0]
    return _is_list(_is_list(byte, 2))(value) and len({pair[0] for pair in value}) == len(value)


def _is_pattern(value: Any) -> bool:
    """Returns whether `value` is a regular expression."""
    try:
        return _is_text(value) and bool(re.compile(value))
    except (re.error, OverflowError):  # The latter for a repetition of more than 2^32.
        return False


def _multiplier(value: Any) -> bool:
    is_pair = isinstance(value, tuple | list) and len(value) == 2
    return is_pair and _is_pattern(value[0]) and _number(0)[0](value[1])


# A padded training image of a detector. mmdetection pads to multiples of 32, too.
_BUCKET = _is_list(lambda side: _whole(SMALLEST, LARGEST)[0](side) and side % 32 == 0, 2)
_TEXT: Range = (_is_text, "a string")
_SWITCH: Range = (lambda value: isinstance(value, bool), "True or False")
_PROBABILITY: Range = _number(0, 1)
_BELOW_ONE: Range = (lambda value: _is_number(value) and 0 <= value < 1, "a number in [0, 1)")
_SHARE: Range = _positive(1)
_SEED: Range = _whole(0, 2**32 - 1)

# Keys that are separated by blanks share a range.
_GROUPS: dict[str, Range] = {
    # These come first, because recipes compute other values from them.
    "batch_size optim.accumulate": _whole(1),
    # The run.
    "seed optim.schedule.noise_seed": _SEED,
    "total_steps log_every eval.batch_size checkpoint.keep": _whole(1),
    "eval.every checkpoint.every profile.skip profile.steps data.workers": _whole(0),
    "init_from compilation_cache": _TEXT,
    "distributed.enabled eval.use_ema optim.ema_warmup optim.decay_tables": _SWITCH,
    "distributed.coordinator": _TEXT,
    "distributed.num_processes": _whole(0),
    "distributed.process_id": _whole(-1),
    # The model.
    "model.name model.detail_input model.detail_combine model.fusion": _TEXT,
    "model.adaptive model.adaptive_source model.adaptive_expansion": _TEXT,
    "model.position_embedding model.adaptive_shared": _SWITCH,
    "model.attention": _TEXT,
    "model.attention_window": _whole(1, 64),
    "model.attention_input": (
        lambda value: value == () or _is_list(_whole(SMALLEST, LARGEST)[0], 2)(value),
        f"height and width, each at least {SMALLEST} and at most {LARGEST}, or ()",
    ),
    "model.drop_path_rate": _BELOW_ONE,
    "model.bn_groups": _whole(1),
    "model.fusion_widths model.attention_widths": (
        _is_list(_whole(1)[0]),
        "whole numbers of at least 1, or ()",
    ),
    "model.neck_width model.tower_convs": _whole(1),
    "model.anchor_scale": _positive(),
    "model.upsample_ratio": _number(1),
    "model.upsample_width": _whole(0),
    # The task and its teacher.
    "task.name teacher.source teacher.model teacher.sha256": _TEXT,
    "task.num_classes": (_whole(0)[0], "at least 1, or 0 for the number of classes of the data"),
    "task.batch_statistics": _SWITCH,
    "task.label_smoothing": _BELOW_ONE,
    "distillation.cross_weight distillation.feature_weight distillation.output_weight": _number(0),
    "distillation.temperature": _positive(),
    # The data.
    "data.source data.root data.name data.train_split data.val_split": _TEXT,
    "data.images data.annotations data.on_corrupt": _TEXT,
    "data.train_size data.val_size": _whole(1),
    "data.image_size": (_whole(SMALLEST, LARGEST)[0], f"at least {SMALLEST} and at most {LARGEST}"),
    "data.mean": (_is_list(_is_number, 3), "three numbers: red, green, blue"),
    "data.std": (_is_list(_positive()[0], 3), "three positive numbers: red, green, blue"),
    "data.crop_size": _sides(
        SMALLEST,
        # Logits are at 1/8, and the loss up-samples them by exactly 8.
        f"height and width, multiples of 8 and at least {SMALLEST}, such as (512, 512)",
        multiple=8,
        most=LARGEST,
    ),
    "data.buckets": (
        lambda value: _is_list(_BUCKET)(value) and len(value) > 0,
        f"pairs (height, width), multiples of 32 and at most {LARGEST}, such as ((800, 1344), (1344, 800))",
    ),
    "data.max_boxes": _whole(1, 10_000),
    "data.base_scale data.scale eval.scale": _sides(
        SMALLEST, f"the long and the short side, each at least {SMALLEST}, such as (2048, 512)"
    ),
    "data.class_names": (_names, "at least two different names, or ()"),
    "data.palette": (
        _is_list(_is_list(_whole(0, 255)[0], 3)),
        "one (red, green, blue) per class, each in 0..255, or ()",
    ),
    "data.reduce_zero_label": _SWITCH,
    "data.ignore_label": _whole(0, 255),
    "data.id_map": (
        _values,
        "pairs (value in the files, class or 255), each value once and all in 0..255, such as ((0, 0), (255, 1))",
    ),
    # Augmentation.
    "augment.crop_scale": _rising(1, "two shares of the image's area, such as (0.08, 1.0)"),
    "augment.crop_ratio": _rising(math.inf, "two ratios width / height, such as (0.75, 1.33)"),
    "augment.scale_range": _rising(math.inf, "two factors, such as (0.5, 2.0)"),
    "augment.cat_max_ratio": _SHARE,
    "augment.rand_augment": _TEXT,
    "augment.flip augment.flip_vertical augment.erasing": _PROBABILITY,
    "augment.photometric augment.on_device": _SWITCH,
    # Larger alphas give half of each image almost always, which nobody means.
    "augment.mixup augment.cutmix": _number(0, 2),
    "augment.mix_group": _whole(1),
    # The optimiser and its schedule.
    "optim.lr optim.eps": _positive(),
    "optim.weight_decay": _number(0, 10),
    "optim.clip_norm": _number(0),
    "optim.momentum optim.b1 optim.b2 optim.rms_decay optim.ema_decay": _BELOW_ONE,
    "optim.no_decay": (
        _is_list(_is_pattern),
        r"regular expressions of parameter paths, such as ('.*(scale|bias)$',), or ()",
    ),
    "optim.lr_multipliers": (
        _is_list(_multiplier),
        "pairs (regular expression of parameter paths, factor of at least 0), such as (('head/.*', 10.0),), or ()",
    ),
    "optim.schedule.warmup_steps optim.schedule.noise_from": _whole(0),
    "optim.schedule.hold_steps": _whole(1),
    "optim.schedule.warmup_init optim.schedule.end_lr optim.schedule.power": _number(0),
    "optim.schedule.decay_steps": _positive(),
    "optim.schedule.decay_rate": _SHARE,
    "optim.schedule.milestones": (
        _is_list(_whole(1)[0]),
        "steps of at least 1, such as (58640, 80630), or ()",
    ),
    # The rate is multiplied by 1 + noise: noise below -1 would make it negative.
    "optim.schedule.noise_limit": _SHARE,
    # Evaluation.
    "eval.crop_fraction": _SHARE,
    "eval.size_divisor": _whole(0),
    "eval.slide_crop": _sides(SMALLEST, f"two lengths of at least {SMALLEST} pixels, such as (512, 512)"),
    "eval.slide_stride": _sides(1, "two lengths in pixels, such as (341, 341)"),
    "eval.scales": (
        lambda value: _is_list(_positive()[0])(value) and len(value) > 0,
        "positive factors, such as (1.0,)",
    ),
    "eval.flip": _SWITCH,
    "eval.pad_multiple": (
        lambda value: _whole(32, LARGEST)[0](value) and value % 32 == 0,
        f"a multiple of 32, at most {LARGEST}",
    ),
    "eval.score_threshold eval.iou_threshold eval.draw_threshold": _PROBABILITY,
    "eval.per_level eval.per_image": _whole(1, 10_000),
}

# Keys whose value is one of a few names -> these names.
NAMES: dict[str, tuple[str, ...]] = {
    "dtype": ("float32", "bfloat16"),
    "task.loss_divisor": ("all", "valid"),
    "optim.name": ("rmsprop_tf", "adamw", "sgd", "lamb", "lars"),
    "optim.schedule.name": ("step", "multistep", "cosine", "poly"),
    "augment.interpolation": ("random", "bilinear", "bicubic"),
    "eval.interpolation": ("bilinear", "bicubic"),
    "eval.mode": ("whole", "slide"),
}

RANGES: dict[str, Range] = {
    **{key: range_ for keys, range_ in _GROUPS.items() for key in keys.split()},
    **{key: _one_of(names) for key, names in NAMES.items()},
}

# Keys that a run may change when it resumes, because no training step depends on them; a star stands for any ending.
# `training/workdir.py` locks all others, but for `total_steps`, which the schedule decides.
RESUMABLE = (
    "data.root",
    "data.workers",
    "data.on_corrupt",
    "teacher.source",  # `teacher.sha256` says which teacher it is.
    "log_every",
    "compilation_cache",
    "profile.*",
    "checkpoint.*",
    "eval.*",
)
