"""The ImageNet recipe, with numbers worked out by hand for several batch sizes."""

import pathlib

import pytest
from absl import flags
from ml_collections import config_flags

from configs import imagenet
from seaformer_jax import config_file, errors
from seaformer_jax.training import optim

RECIPE = pathlib.Path(imagenet.__file__)


def from_command_line(variant, *overrides):
    command = ["train", f"--config={RECIPE}:{variant}", *overrides]
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=command)
    values(command)
    return values.config


def test_published_settings():
    c = imagenet.get_config("tiny")
    assert (c.batch_size, c.total_steps, c.dtype) == (1024, 750_600, "bfloat16")  # 1251 steps an epoch.
    assert (c.model.name, c.model.drop_path_rate, c.model.bn_groups) == ("seaformer_tiny", 0.1, 8)
    assert (c.optim.name, c.optim.lr, c.optim.momentum) == ("rmsprop_tf", 0.064, 0.9)
    assert (c.optim.eps, c.optim.weight_decay, c.optim.ema_decay) == (1e-3, 2e-5, 0.9999)
    assert not c.optim.ema_warmup
    s = c.optim.schedule
    assert (s.name, s.decay_rate, s.warmup_init, s.warmup_steps) == ("step", 0.973, 1e-6, 12_510)
    assert (s.hold_steps, s.noise_from, s.noise_limit, s.noise_seed) == (1251, 252 * 1251, 0.67, 42)
    assert s.decay_steps == pytest.approx(3002.4)
    assert (c.augment.rand_augment, c.augment.erasing, c.augment.mixup) == ("rand-m9-mstd0.5", 0.2, 0.0)
    assert (c.augment.cutmix, c.augment.mix_group, c.task.label_smoothing) == (0.0, 128, 0.1)
    assert (c.data.source, c.data.name, c.data.val_split) == ("tfds", "imagenet2012", "validation")
    assert (c.data.image_size, c.eval.crop_fraction, c.eval.interpolation) == (224, 0.875, "bicubic")
    assert (c.eval.every, c.checkpoint.every, c.eval.use_ema) == (6255, 6255, True)


@pytest.mark.parametrize(
    ("size", "mixup", "warmup_steps"), [("small", 0.2, 50_040), ("base", 0.2, 12_510), ("large", 0.2, 12_510)]
)
def test_sizes_differ_in_model_mixup_and_warm_up(size, mixup, warmup_steps):
    c = imagenet.get_config(size)
    assert (c.model.name, c.augment.mixup) == (f"seaformer_{size}", mixup)
    assert c.optim.schedule.warmup_steps == warmup_steps


def assert_rescaled_to_4096(c):
    assert c.total_steps == 187_200  # 600 epochs of 312 steps.
    assert c.optim.lr == pytest.approx(0.256)
    assert c.optim.ema_decay == pytest.approx(0.99960006)
    assert c.model.bn_groups == 32
    s = c.optim.schedule
    assert (s.warmup_steps, s.hold_steps, s.noise_from) == (20 * 312, 312, 252 * 312)
    assert s.decay_steps == pytest.approx(748.8)
    assert (c.eval.every, c.checkpoint.every) == (1560, 1560)


def test_the_record_follows_the_batch_size():
    c = imagenet.get_config("tiny")
    c.batch_size = 4096
    assert_rescaled_to_4096(c)


def test_the_record_follows_the_batch_size_of_the_command_line():
    assert_rescaled_to_4096(from_command_line("tiny", "--config.batch_size=4096"))


@pytest.mark.parametrize("swap", [False, True])
def test_a_value_of_the_command_line_wins_over_the_rule(swap):
    overrides = ["--config.batch_size=256", "--config.optim.lr=0.5"]
    c = from_command_line("large", *(overrides[::-1] if swap else overrides))
    assert c.optim.lr == 0.5
    assert c.optim.schedule.warmup_steps == 5 * 5004


@pytest.mark.parametrize(
    ("batch", "accumulate", "groups"), [(64, 1, 1), (256, 1, 2), (192, 1, 2), (1024, 4, 2), (1024, 8, 1)]
)
def test_batch_norm_groups_hold_at_most_128_images(batch, accumulate, groups):
    c = imagenet.get_config("tiny")
    c.batch_size, c.optim.accumulate = batch, accumulate
    assert c.model.bn_groups == groups


@pytest.mark.parametrize(
    ("variant", "batch", "lr", "warmup_steps", "power"),
    [
        ("tiny,lamb", 8192, 0.02, 782, 1.0),
        ("tiny,lamb", 32768, 0.04, 782, 1.0),
        ("base,lars", 8192, 16.0, 391, 2.0),
        ("base,lars", 32768, 32.0, 391, 2.0),
    ],
)
def test_large_batch_variants(variant, batch, lr, warmup_steps, power):
    c = imagenet.get_config(variant)
    assert c.batch_size == 8192
    c.batch_size = batch
    assert c.optim.name == variant.partition(",")[2]
    assert c.optim.lr == pytest.approx(lr)
    assert c.optim.schedule.name == "poly"
    assert (c.optim.schedule.warmup_steps, c.optim.schedule.power) == (warmup_steps, power)
    assert c.total_steps == 600 * (1_281_167 // batch)


@pytest.mark.parametrize(
    ("variant", "epoch", "lr"),
    [
        ("tiny", 0, 1e-6),
        ("tiny", 9, 1e-6 + 0.9 * (0.064 - 1e-6)),
        ("tiny", 10, 0.064 * 0.973**4),
        ("tiny", 12, 0.064 * 0.973**5),
        ("tiny", 251, 0.064 * 0.973**104),
        ("small", 39, 1e-6 + 39 / 40 * (0.064 - 1e-6)),
        ("small", 40, 0.064 * 0.973**16),
        ("tiny,lamb", 300, 0.01),
        ("tiny,lars", 300, 4.0),
    ],
)
def test_the_learning_rate_of_an_epoch(variant, epoch, lr):
    c = imagenet.get_config(variant)
    params = {"conv": {"kernel": 0.0, "bias": 0.0}}
    _, schedule = optim.create(c.optim, c.total_steps, params)
    assert float(schedule(epoch * (1_281_167 // c.batch_size))) == pytest.approx(lr, rel=1e-6)


def test_the_record_survives_a_file(tmp_path):
    c = imagenet.get_config("small")
    config_file.save(c, tmp_path / "config.json")
    assert config_file.load(tmp_path / "config.json").to_dict() == c.to_dict()


@pytest.mark.parametrize(("variant", "hint"), [("tine", " Did you mean 'tiny'?"), ("xl,sgd", ""), ("", "")])
def test_unknown_variant_names_the_choices(variant, hint):
    with pytest.raises(errors.UserError, match=f"has no variant '{variant}'") as error:
        imagenet.get_config(variant)
    assert str(error.value).endswith(f"large large,lamb large,lars.{hint}")
