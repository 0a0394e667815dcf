"""Every value of a config has a range, and a config that contradicts itself is refused before anything is built."""

import itertools
import json
import math

import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from seaformer_jax import config as configs
from seaformer_jax import config_ranges, tasks
from seaformer_jax.config_check import check
from seaformer_jax.data.classification import augment
from seaformer_jax.errors import UserError
from seaformer_jax.training import optim, schedules, workdir

NAN, INFINITY = math.nan, math.inf
PAIRS = (("head/.*", 10.0),)
TEXTS = (
    "init_from compilation_cache distributed.coordinator model.name model.attention model.detail_input "
    "model.detail_combine model.fusion model.adaptive model.adaptive_source model.adaptive_expansion teacher.source "
    "teacher.model teacher.sha256 data.source data.root data.name data.train_split data.val_split data.images "
    "data.annotations data.on_corrupt augment.interpolation augment.rand_augment eval.interpolation"
)
SWITCHES = (
    "distributed.enabled eval.use_ema optim.ema_warmup optim.decay_tables model.position_embedding "
    "model.adaptive_shared task.batch_statistics data.reduce_zero_label augment.photometric augment.on_device "
    "eval.flip"
)
# Key -> values outside its range.
REFUSED = {
    **{key: (3, ("x",), None) for key in TEXTS.split()},
    **{key: (1, "yes") for key in SWITCHES.split()},
    "task.name": ("clasification", 3, ("x",)),
    "seed": (-1, 2**32, 1.5, True),
    "total_steps": (0, 2**31, 10.0),
    "batch_size": (0, -8),
    "log_every": (0,),
    "dtype": ("float16", 3),
    "distributed.num_processes": (-1,),
    "distributed.process_id": (-2,),
    "model.drop_path_rate": (1.0, -0.1, NAN),
    "model.bn_groups": (0,),
    "model.fusion_widths": ((0,), 64, ("64",)),
    "model.attention_widths": ((0,), 64, ("64",)),
    "model.attention_window": (0, 65, 7.0),
    "model.attention_input": ((16, 64), (64,), 64),
    "model.neck_width": (0, 1.5),
    "model.tower_convs": (0,),
    "model.anchor_scale": (0.0, -4.0, NAN),
    "model.upsample_ratio": (0.5, INFINITY, NAN),
    "model.upsample_width": (-1,),
    "task.num_classes": (1, -1, 2**31, "8"),
    "task.label_smoothing": (1.0, -0.1, NAN),
    "task.loss_divisor": ("labelled",),
    "distillation.cross_weight": (-1.0, NAN),
    "distillation.feature_weight": (-1.0, INFINITY),
    "distillation.output_weight": (-1.0, NAN),
    "distillation.temperature": (0.0, NAN),
    "data.workers": (-1,),
    "data.train_size": (0,),
    "data.val_size": (0,),
    "data.image_size": (31, 8193, "224"),
    "data.mean": ((0.5, 0.5), ("a", "b", "c"), (NAN, 0.5, 0.5), "abc"),
    "data.std": ((0.5, 0.5, 0.0), ("a", "b", "c"), (INFINITY, 0.5, 0.5)),
    "data.base_scale": ((1, 1), (512,), (31, 64), ("512", "512")),
    "data.crop_size": ((24, 64), (64, 60), (64,), (64, 8200)),
    "data.scale": ((1, 1), (512,), ("512", "512")),
    "data.buckets": ((), ((800, 1333),), ((0, 32),), (800, 1344), ((8224, 32),), "800x1344"),
    "data.max_boxes": (0, 10**6),
    "data.class_names": (("road",), ("road", "road"), ("road", ""), "road", (1, 2)),
    "data.palette": (((0, 0, 256),), ((0, 0, -1),), ((0, 0),), (0, 0, 0)),
    "data.ignore_label": (-1, 256),
    "data.id_map": ((0, 1), ((0,),), ((0, 256),), ((7, 0), (7, 1)), (("7", "0"),), 7),
    "augment.crop_scale": ((0.5,), (0.5, 1.5), (1.0, 0.5), (NAN, 1.0)),
    "augment.crop_ratio": ((0.0, 1.0), (1.0, INFINITY), (1.3, 0.7)),
    "augment.scale_range": ((2.0, 0.5), (0.0, 1.0)),
    "augment.cat_max_ratio": (0.0, 1.1, NAN),
    "augment.flip": (1.5, -0.5, NAN),
    "augment.flip_vertical": (1.5, -0.5, NAN),
    "augment.erasing": (1.5, -0.5, NAN),
    "augment.mixup": (5.0, -0.1, NAN),
    "augment.cutmix": (5.0, -0.1, NAN),
    "augment.mix_group": (0,),
    "optim.lr": (0.0, -1.0, NAN, INFINITY, "fast"),
    "optim.weight_decay": (1e9, -0.1, NAN),
    "optim.momentum": (1.0, -0.1, NAN),
    "optim.b1": (2.0, 1.0, -0.1, NAN),
    "optim.b2": (-1.0, 1.0, NAN),
    "optim.eps": (-1.0, 0.0, NAN),
    "optim.rms_decay": (1.0, -0.1, NAN),
    "optim.clip_norm": (-1.0, NAN),
    "optim.accumulate": (0,),
    "optim.name": ("adam", 3),
    "optim.schedule.name": ("cosin", None),
    "optim.no_decay": (".*bias", (1,), ((".*bias",),), ("(",)),
    "optim.lr_multipliers": (
        *(PAIRS[0], (*PAIRS, ("x", -1.0)), (("x", NAN),), (("x", "1"),), (("x",),), 10.0),
        (("(", 1.0),),
    ),
    "optim.ema_decay": (1.0, -0.1, NAN),
    "optim.schedule.warmup_steps": (-1,),
    "optim.schedule.warmup_init": (-1e-6, NAN),
    "optim.schedule.end_lr": (-1e-6, NAN, INFINITY),
    "optim.schedule.power": (-1.0, NAN),
    "optim.schedule.decay_steps": (0.0, -1.0, NAN),
    "optim.schedule.decay_rate": (0.0, -0.9, 1.1, NAN),
    "optim.schedule.milestones": (5, (0,), (1.5,)),
    "optim.schedule.hold_steps": (0,),
    "optim.schedule.noise_from": (-1,),
    "optim.schedule.noise_limit": (0.0, 1.5, NAN),
    "optim.schedule.noise_seed": (-1, 2**32),
    "eval.every": (-1,),
    "eval.batch_size": (0,),
    "eval.crop_fraction": (0.0, 1.1, NAN),
    "eval.scale": ((1, 1), (512, 0), (512,)),
    "eval.size_divisor": (-1,),
    "eval.pad_multiple": (0, 16, 48, 8224),
    "eval.score_threshold": (1.1, -0.1, NAN),
    "eval.iou_threshold": (1.1, -0.1, NAN),
    "eval.draw_threshold": (1.1, -0.1, NAN),
    "eval.per_level": (0, 10**6),
    "eval.per_image": (0, 10**6),
    "eval.mode": ("window",),
    "eval.slide_crop": ((31, 64), (64,)),
    "eval.slide_stride": ((0, 64), (64, 129), (64,)),
    "eval.scales": ((), (0.0,), (NAN,), 1.0),
    "checkpoint.every": (-1,),
    "checkpoint.keep": (0,),
    "profile.skip": (-1, 1.5),
    "profile.steps": (-1, True),
}
# The other ends of the ranges: values that stay allowed.
ALLOWED = {
    "seed": 2**32 - 1,
    "task.num_classes": 2,
    "augment.mixup": 2.0,
    "augment.erasing": 1,
    "optim.lr": 16.0,
    "optim.weight_decay": 10.0,
    "optim.clip_norm": 0.0,
    "optim.no_decay": (),
    "optim.lr_multipliers": (("head/.*", 0), *PAIRS),
    "optim.schedule.warmup_steps": 1000,
    "data.image_size": 32,
    "data.train_size": 1,
    "data.val_size": 1,
    "eval.slide_stride": (128, 128),
}


def leaves(config: configs.ConfigDict) -> dict:
    return flatten_dict(config.to_dict(), sep=".")


def changed(task: str, **changes) -> configs.ConfigDict:
    """Returns a default config with other values, of any type, as a file may hold them."""
    return configs.ConfigDict(unflatten_dict(leaves(configs.for_task(task)) | changes, sep="."))


def test_every_key_has_a_range_and_a_refused_value():
    """A new key needs an entry in `config_ranges.py` and one in `REFUSED`."""
    keys = set().union(*(leaves(default()) for default in configs.TASKS.values()))
    assert keys == config_ranges.RANGES.keys() == REFUSED.keys()


def task_with(key: str) -> str:
    return next(name for name in configs.TASKS if key in leaves(configs.for_task(name)))


@pytest.mark.parametrize("key", sorted(REFUSED))
def test_values_outside_their_range(key):
    for value in REFUSED[key]:
        with pytest.raises(UserError, match=rf"^{key} is .*; expected "):
            check(changed(task_with(key), **{key: value}))


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("optim.name", "adam", "expected rmsprop_tf, adamw, sgd, lamb or lars. Did you mean 'adamw'?"),
        ("optim.schedule.name", "cosin", "expected step, multistep, cosine or poly. Did you mean 'cosine'?"),
        ("dtype", "bfloat", "expected float32 or bfloat16. Did you mean 'bfloat16'?"),
        ("dtype", "int8", "expected float32 or bfloat16"),
    ],
)
def test_names_are_suggested(key, value, says):
    with pytest.raises(UserError) as error:
        check(changed("classification", **{key: value}))
    assert str(error.value) == f"{key} is {value!r}; {says}"


def test_names_are_those_of_the_modules_that_use_them():
    assert config_ranges.NAMES["optim.name"] == tuple(optim._OPTIMISERS)
    assert config_ranges.NAMES["optim.schedule.name"] == tuple(schedules._DECAYS)
    assert config_ranges.NAMES["eval.interpolation"] == tuple(augment.RESAMPLING)
    assert config_ranges.NAMES["augment.interpolation"] == ("random", *augment.RESAMPLING)


def test_ends_of_ranges_are_allowed():
    for key, value in ALLOWED.items():
        check(changed(task_with(key), **{key: value}))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"total_steps": 99}, r"optim\.schedule\.warmup_steps is 100; expected at most total_steps, 99"),
        ({"model.bn_groups": 3}, r"model\.bn_groups is 3; expected a divisor of 64"),
        (
            {"distributed.num_processes": 2, "distributed.process_id": 2},
            r"distributed\.process_id is 2; expected less",
        ),
    ],
)
def test_values_that_contradict_each_other(changes, says):
    with pytest.raises(UserError, match=says):
        check(changed("classification", **changes))


def test_defaults_are_those_of_the_tasks():
    assert configs.TASKS.keys() == tasks._TASKS.keys()
    for name in configs.TASKS:
        check(configs.for_task(name))
        assert configs.for_task(name).task.name == name


@pytest.mark.parametrize(("given", "own"), [*itertools.permutations(configs.TASKS, 2)])
def test_a_task_that_the_config_is_not_for(given, own):
    with pytest.raises(UserError, match=f"^task.name is '{given}'; expected '{own}', because "):
        check(changed(own, **{"task.name": given}))


def test_missing_and_unknown_keys():
    config = configs.default()
    config.optim.learning_rates = 0.1
    with pytest.raises(UserError, match=r"^optim\.learning_rates is no key of a config for classification"):
        check(config)
    config = configs.default()
    del config.optim.lr
    with pytest.raises(UserError, match=r"^the config lacks optim\.lr; expected all keys"):
        check(config)
    with pytest.raises(UserError, match=r"^task\.name is None; expected one of"):
        check(configs.ConfigDict())


def test_a_config_of_a_workdir_is_checked_too(tmp_path):
    workdir.prepare_workdir(tmp_path, configs.default(), ("a", "b"))
    content = json.loads((tmp_path / "config.json").read_text())
    content["optim"]["b1"] = 2.0
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(
        UserError, match=r"config\.json is damaged: optim\.b1 is 2\.0; expected a number in \[0, 1\)"
    ):
        workdir.read(tmp_path)
