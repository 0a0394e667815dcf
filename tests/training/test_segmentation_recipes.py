"""The segmentation recipes, with the numbers of the official files (seaformer-seg/local_configs/seaformer)."""

import pytest

from configs import ade20k, camvid, cityscapes, coco_stuff, pascal_context
from seaformer_jax import config_file, errors
from seaformer_jax.training import optim

RECIPES = {
    "ade20k": ade20k,
    "camvid": camvid,
    "cityscapes": cityscapes,
    "coco_stuff": coco_stuff,
    "pascal_context": pascal_context,
}


@pytest.mark.parametrize(
    ("recipe", "variant", "steps", "batch", "lr", "base_scale", "crop_size", "size_divisor"),
    [
        ("ade20k", "tiny_2x8", 160_000, 16, 3e-4, (2048, 512), (512, 512), 32),
        ("ade20k", "small", 160_000, 16, 2.5e-4, (2048, 512), (512, 512), 32),
        ("ade20k", "large_2x8", 160_000, 16, 2.5e-4, (2048, 512), (512, 512), 32),
        ("ade20k", "tiny_4x8", 160_000, 32, 5e-4, (2048, 512), (512, 512), 32),
        ("cityscapes", "small_1024x512", 160_000, 8, 3e-4, (1024, 512), (512, 1024), 0),
        ("cityscapes", "base_1024x1024", 160_000, 8, 3e-4, (2048, 1024), (1024, 1024), 0),
        ("pascal_context", "tiny_60", 80_000, 32, 2e-4, (520, 520), (480, 480), 0),
        ("pascal_context", "small_60", 80_000, 16, 2e-4, (520, 520), (480, 480), 0),
        ("pascal_context", "small_59", 80_000, 32, 2e-4, (520, 520), (480, 480), 0),
        ("coco_stuff", "base", 80_000, 32, 2e-4, (2048, 512), (512, 512), 0),
    ],
)
def test_published_settings(recipe, variant, steps, batch, lr, base_scale, crop_size, size_divisor):
    c = RECIPES[recipe].get_config(variant)
    assert c.model.name == f"seaformer_{variant.partition('_')[0]}"
    assert (c.total_steps, c.batch_size, c.optim.lr) == (steps, batch, lr)
    assert (c.data.base_scale, c.data.crop_size) == (base_scale, crop_size)
    assert (c.eval.scale, c.eval.size_divisor, c.eval.mode) == (base_scale, size_divisor, "whole")
    assert (c.eval.scales, c.eval.flip, c.eval.every, c.checkpoint.every) == ((1.0,), False, 4000, 4000)
    # What all have in common.
    assert (c.optim.name, c.optim.b1, c.optim.b2, c.optim.weight_decay) == ("adamw", 0.9, 0.999, 0.01)
    assert (c.optim.ema_decay, c.optim.clip_norm, c.model.bn_groups) == (0, 0, 1)
    assert c.optim.lr_multipliers == ((r"(head|upsample)/.*", 10.0),)  # `head` lr x 10.
    schedule = c.optim.schedule
    assert (schedule.name, schedule.power, schedule.end_lr, schedule.warmup_steps) == ("poly", 1, 0, 1500)
    assert schedule.warmup_init == pytest.approx(1e-6 * lr)
    assert (c.task.loss_divisor, c.model.drop_path_rate, c.dtype) == ("all", 0.1, "float32")
    augment = c.augment
    assert (augment.scale_range, augment.cat_max_ratio, augment.flip) == ((0.5, 2), 0.75, 0.5)
    assert augment.photometric


@pytest.mark.parametrize(
    ("recipe", "variant", "crop", "stride"),
    [
        ("ade20k", "tiny", (512, 512), (341, 341)),
        ("cityscapes", "tiny_1024x512", (512, 1024), (341, 682)),
        ("cityscapes", "tiny_1024x1024", (1024, 1024), (682, 682)),
    ],
)
def test_windows_overlap_by_a_third(recipe, variant, crop, stride):
    config = RECIPES[recipe].get_config(variant).eval
    assert (config.slide_crop, config.slide_stride) == (crop, stride)


def test_classes_of_pascal_context():
    sources = [pascal_context.get_config(f"tiny_{classes}").data.source for classes in (59, 60)]
    assert sources == ["pascal_context_59", "pascal_context"]


@pytest.mark.parametrize(("step", "share"), [(0, 1e-6), (750, 0.5 * (1 - 750 / 160_000)), (80_000, 0.5)])
def test_the_learning_rate_of_a_step(step, share):
    """Warm-up from a ratio of 1e-6, times the linear decay."""
    c = ade20k.get_config("small_4x8")
    params = {"x_position": {"table": 0.0}, "head": {"kernel": 0.0}}
    _, schedule = optim.create(c.optim, c.total_steps, params)
    assert float(schedule(step)) == pytest.approx(5e-4 * share, rel=1e-5)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_record_survives_a_file(tmp_path, recipe):
    variant = {"cityscapes": "tiny_1024x512", "pascal_context": "tiny_59"}.get(recipe, "tiny")
    c = RECIPES[recipe].get_config(variant)
    config_file.save(c, tmp_path / "config.json")
    assert config_file.load(tmp_path / "config.json").to_dict() == c.to_dict()


@pytest.mark.parametrize("recipe", RECIPES)
def test_unknown_variant_names_the_choices(recipe):
    with pytest.raises(errors.UserError, match=rf"configs/{recipe}\.py has no variant 'tinny'.* one of tiny"):
        RECIPES[recipe].get_config("tinny")
