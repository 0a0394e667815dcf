"""Checks a config as a whole, so that a wrong value is an error at the start and not a crash at step 500.

`config_ranges.py` has the range of each value; the relations between values are here.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict, FieldReference

from seaformer_jax.config import TASKS
from seaformer_jax.config_ranges import NAMES, RANGES, SMALLEST
from seaformer_jax.errors import UserError, suggest


def check(config: ConfigDict) -> None:
    """Checks that `config` has the keys of its task, with values that are in range and do not contradict each other.

    Names of models, sources and the like, and whether patterns match parameters, are checked where they are used.

    Raises:
        UserError: The task is unknown, a key is missing or unknown, or a value has the wrong type, is outside its
            range or contradicts another value.
    """
    # 1. The keys.
    leaves = dict(_leaves(config))
    _check_keys(leaves)
    # 2. Single values, in the order of the table. Reading a value computes it from the ones that it refers to, so
    #    those have to be checked before it.
    for key, (holds, expected) in RANGES.items():
        # A missing key belongs to another task's config.
        if key in leaves and not holds(value := _read(leaves[key])):
            raise UserError(f"{key} is {value!r}; expected {expected}{_suggest(key, value)}")
    # 3. Values that depend on each other.
    _check_classes(config)
    _check_groups(config)
    _check_warm_up(config)
    _check_processes(config)
    if "slide_crop" in config.eval:
        _check_windows(config)
    if "distillation" in config:
        _check_ratio(config)


def _leaves(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the key of every value, such as "optim.lr", with the value or the reference that computes it."""
    for name, value in config.items(preserve_field_references=True):
        if isinstance(value, ConfigDict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _read(leaf: Any) -> Any:
    return leaf.get() if isinstance(leaf, FieldReference) else leaf


def _suggest(key: str, value: Any) -> str:
    """Returns the suggestion of the name that `value` may mean, or ""."""
    suggestion = suggest(str(value), NAMES.get(key, ()))
    return f".{suggestion}" if suggestion else ""


def _check_keys(leaves: Mapping[str, Any]) -> None:
    """Checks that the config has exactly the keys of the task that it names.

    Args:
        leaves: Key -> value, as `_leaves` yields them.
    """
    name = _read(leaves.get("task.name"))
    expected = {task: {key for key, _ in _leaves(default())} for task, default in TASKS.items()}
    if not isinstance(name, str) or name not in expected:
        raise UserError(
            f"task.name is {name!r}; expected one of {', '.join(expected)}.{suggest(str(name), expected)}"
        )
    if leaves.keys() == expected[name]:
        return
    if own := [task for task, keys in expected.items() if keys == leaves.keys()]:
        raise UserError(
            f"task.name is {name!r}; expected {own[0]!r}, because the config is for that task; use another recipe"
        )
    if unknown := sorted(leaves.keys() - expected[name]):
        raise UserError(
            f"{unknown[0]} is no key of a config for {name}; remove it.{suggest(unknown[0], expected[name])}"
        )
    missing = sorted(expected[name] - leaves.keys())
    raise UserError(
        f"the config lacks {', '.join(missing)}; expected all keys of a config for {name}, as "
        "seaformer_jax/config.py makes it"
    )


def _check_classes(config: ConfigDict) -> None:
    if config.task.num_classes == 1 and config.task.name != "detection":
        raise UserError(
            "task.num_classes is 1; expected at least 2, or 0 for the number of classes of the data: with one class "
            "there is nothing to tell apart"
        )


def _check_groups(config: ConfigDict) -> None:
    images = config.batch_size // config.optim.accumulate
    if images % config.model.bn_groups:
        raise UserError(
            f"model.bn_groups is {config.model.bn_groups}; expected a divisor of {images}, the images that the "
            "model sees at once (batch_size / optim.accumulate)"
        )


def _check_warm_up(config: ConfigDict) -> None:
    steps = config.optim.schedule.warmup_steps
    if steps > config.total_steps:
        raise UserError(
            f"optim.schedule.warmup_steps is {steps}; expected at most total_steps, {config.total_steps}, because "
            "the run ends before its warm-up otherwise; lower it, or raise total_steps"
        )


def _check_processes(config: ConfigDict) -> None:
    distributed = config.distributed
    if 0 < distributed.num_processes <= distributed.process_id:
        raise UserError(
            f"distributed.process_id is {distributed.process_id}; expected less than distributed.num_processes, "
            f"{distributed.num_processes}"
        )


def _check_windows(config: ConfigDict) -> None:
    stride, crop = config.eval.slide_stride, config.eval.slide_crop
    if any(step > side for step, side in zip(stride, crop, strict=True)):
        raise UserError(
            f"eval.slide_stride is {stride!r}; expected at most eval.slide_crop, {crop!r}, so that no pixel is left "
            "out"
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
    if any(side / ratio % multiple or side / ratio < SMALLEST for side in sides):
        raise UserError(
            f"model.upsample_ratio is {ratio!r}; expected a number of at least 1 that divides data.{key}, "
            f"{config.data[key]!r}, into {f'multiples of {multiple}' if segments else 'whole numbers'} of at least "
            f"{SMALLEST} pixels"
        )
