"""The configuration record: every key of every recipe, with its default.

A recipe in `configs/` starts from `default()` or `segmentation()` and changes what it means to change;
`distillation()` adds what the student of another model needs. The command
line changes single keys with `--config.optim.lr=0.01`. A key that is not here is an error, never a silent no-op.
"""

import pathlib
from collections.abc import Iterable
from typing import Any

import ml_collections

from seaformer_jax import json_files
from seaformer_jax.errors import UserError, suggest

ConfigDict = ml_collections.ConfigDict

# Mean and standard deviation of ImageNet's red, green and blue, for images in [0, 1]; all official weights use them.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def default() -> ConfigDict:
    """Returns the classification record that recipes start from (a laptop-sized run on `shapes`)."""
    c = _common()
    c.task = ConfigDict({"name": "classification", "num_classes": 0, "label_smoothing": 0.1})
    c.augment = _augment()
    c.eval.update({"batch_size": 100, "crop_fraction": 0.875, "interpolation": "bicubic"})
    return c


def segmentation() -> ConfigDict:
    """Returns the segmentation record that recipes start from: the official optimisation, run on `shapes`.

    What the official recipes have in common (seaformer-seg/local_configs/seaformer) is the default here.
    """
    c = _common()
    c.model.update(
        {
            "fusion_widths": (),  # Channels of the fusion blocks; () leaves the variant's own.
            "fusion": "sigmoid_multiply",  # sigmoid_multiply | multiply | add | sigmoid_add
        }
    )
    c.task = ConfigDict(
        {
            "name": "segmentation",
            "num_classes": 0,  # 0: as many as the data set has
            "loss_divisor": "all",  # The summed loss is divided by all pixels, as in mmseg, or by the "valid" ones.
        }
    )
    c.data.update(_segmentation_data())
    c.augment = ConfigDict(
        {
            "scale_range": (0.5, 2.0),  # Of the image, about data.base_scale.
            "cat_max_ratio": 0.75,  # No class may cover more of a crop; ten draws, then any.
            "flip": 0.5,
            "photometric": True,
        }
    )
    c.optim.update({"lr": 2.5e-4, "weight_decay": 0.01, "ema_decay": 0.0})
    # None without position embedding: a pattern that matches nothing is an error.
    tables = ml_collections.FieldReference((r".*_position/table",))
    c.optim.no_decay = tables * c.model.get_ref("position_embedding").to_int()
    # The modules that no classifier has learn faster: the head, and the up-sampling of a distilled student.
    c.optim.lr_multipliers = ((r"(head|upsample)/.*", 10.0),)
    c.optim.schedule.update({"name": "poly", "warmup_steps": 1500})
    c.optim.schedule.warmup_init = c.optim.get_ref("lr") * 1e-6
    c.eval.update(_segmentation_eval())
    return c


def distillation(record: ConfigDict) -> ConfigDict:
    """Returns `record`, of segmentation or classification, with what distillation needs besides.

    Its data, schedule and evaluation are those of the teacher's resolution; the student sees the images smaller.
    """
    record.task.name = f"distilled_{record.task.name}"
    record.model.upsample_ratio = 2.0  # Side of the teacher's image / side of the student's, at least 1.
    record.model.upsample_width = 0  # Channels of the features that both compare; found with the teacher.
    record.teacher = ConfigDict(
        {
            "source": "",  # A workdir, or a checkpoint file with the official names.
            "model": "",  # Of a file, which does not tell it: "seaformer_base", for example.
            "sha256": "",  # Of the weights; found when they are read. A run keeps it and refuses another teacher.
        }
    )
    # Factors of the terms in distillation_losses.py; a term of weight 0 is left out.
    record.distillation = ConfigDict(
        {"cross_weight": 1.0, "feature_weight": 1.0, "output_weight": 1.0, "temperature": 1.0}
    )
    return record


def _common() -> ConfigDict:
    c = ConfigDict()
    c.seed = 0
    c.total_steps = 1000
    c.batch_size = 64  # Global: over all devices of all hosts.
    c.dtype = "float32"  # Compute; parameters, statistics and losses stay float32.
    c.log_every = 50  # Steps between progress lines.
    c.init_from = ""  # A workdir, or a checkpoint file with the official names.
    c.compilation_cache = "~/.cache/seaformer_jax/xla"  # "" switches it off.
    c.model = _model()
    c.data = _data()
    c.optim = _optim()
    c.eval = ConfigDict({"every": 500, "batch_size": 1, "use_ema": True})
    c.checkpoint = ConfigDict({"every": 500, "keep": 2})
    # Several hosts: the fields of jax.distributed.initialize; left empty where the cluster announces itself.
    c.distributed = ConfigDict({"enabled": False, "coordinator": "", "num_processes": 0, "process_id": -1})
    return c


def _model() -> ConfigDict:
    return ConfigDict(
        {
            "name": "seaformer_tiny",
            "drop_path_rate": 0.1,
            "bn_groups": 1,  # Groups of the global (micro)batch with their own BatchNorm statistics.
            "detail_input": "qkv",  # qkv | conv | upconv | none: what detail enhancement reads
            "detail_combine": "multiply",  # multiply | add
            "position_embedding": True,
            # Of the seaformer_plus models; explained in models/attention/sea.py.
            "adaptive": "",  # none | both | squeeze | expand; "" leaves the model's own.
            "adaptive_source": "x",  # x | q
            "adaptive_shared": False,  # over the heads
            "adaptive_expansion": "linear",  # linear | sigmoid
        }
    )


def _data() -> ConfigDict:
    return ConfigDict(
        {
            "source": "shapes",  # shapes | folder | tfds
            "root": "",  # folder: <root>/<split>/<class>/*.jpg; tfds: its data_dir
            "name": "imagenet2012",  # tfds: the data set's name
            "train_split": "train",
            "val_split": "val",
            "image_size": 224,
            "mean": IMAGENET_MEAN,  # Of images in [0, 1].
            "std": IMAGENET_STD,
            "workers": 0,  # Processes that decode and augment; 0 uses threads of this one.
            "on_corrupt": "error",  # error | skip
            "train_size": 4096,  # shapes: images in the training split
            "val_size": 512,  # shapes: images in the validation split
        }
    )


def _segmentation_data() -> dict[str, Any]:
    """What `data.source` may be, and what it reads of `root`, is in data/segmentation/sources.py."""
    return {
        "name": "scene_parse150",  # tfds: scene_parse150 | cityscapes
        "image_size": 128,  # shapes alone
        "base_scale": (
            128,
            128,
        ),  # (long, short) side at most, keeping the ratio; augment.scale_range is about it
        "crop_size": (128, 128),  # (height, width), multiples of 8
        # pairs: folders below root, each with <split>/, and what the masks mean (data/labels.py)
        "images": "images",
        "annotations": "annotations",
        "class_names": (),
        "palette": (),  # (red, green, blue) of each class; () chooses distinct ones
        "reduce_zero_label": False,
        "ignore_label": 255,
        "id_map": (),  # Pairs (value in the files, class or 255)
    }


def _segmentation_eval() -> dict[str, Any]:
    return {
        "scale": (128, 128),  # (long, short) side at most, keeping the ratio
        "size_divisor": 0,  # The resized image is stretched to multiples of this; 0: left as it is
        "mode": "whole",  # whole | slide
        "slide_crop": (128, 128),  # (height, width) of a window
        "slide_stride": (85, 85),  # (down, right) between windows
        "scales": (1.0,),  # Factors on `scale`; class probabilities are averaged over them
        "flip": False,  # Averages over the mirrored image, too.
    }


def _augment() -> ConfigDict:
    return ConfigDict(
        {
            "crop_scale": (0.08, 1.0),
            "crop_ratio": (3 / 4, 4 / 3),
            "interpolation": "random",  # random (bilinear or bicubic) | bilinear | bicubic
            "flip": 0.5,
            "rand_augment": "rand-m9-mstd0.5",  # "" switches it off.
            "erasing": 0.2,
            "mixup": 0.0,
            "cutmix": 0.0,
            "mix_group": 128,  # Images that share one mixing factor: the official per-GPU batch.
        }
    )


def _optim() -> ConfigDict:
    return ConfigDict(
        {
            "name": "adamw",  # rmsprop_tf | adamw | sgd | lamb | lars
            "lr": 1e-3,
            "weight_decay": 0.05,
            "momentum": 0.9,  # rmsprop_tf, sgd (Nesterov), lars
            "b1": 0.9,  # adamw, lamb
            "b2": 0.999,  # adamw, lamb
            "eps": 1e-8,
            "rms_decay": 0.9,  # rmsprop_tf
            "clip_norm": 0.0,  # Global gradient norm; 0 switches clipping off.
            "accumulate": 1,  # Microbatches per step, of batch_size / accumulate images each.
            "no_decay": (r".*(scale|bias)$",),  # Regular expressions on parameter paths.
            "lr_multipliers": (),  # ((regular expression, factor), ...)
            "ema_decay": 0.9999,  # 0 switches the moving average off.
            "schedule": ConfigDict(
                {
                    "name": "cosine",  # step | cosine | poly
                    "warmup_steps": 100,
                    "warmup_init": 1e-6,  # Learning rate at step 0 (lr times the warm-up ratio of mmcv).
                    "end_lr": 0.0,  # cosine, poly
                    "power": 1.0,  # poly
                    "decay_steps": 1.0,  # step: the rate falls by decay_rate every so many steps
                    "decay_rate": 0.973,  # step
                    "hold_steps": 1,  # The rate changes only every so many steps (an epoch in timm).
                    "noise_from": 0,  # Step from which the rate is noisy; 0: never
                    "noise_limit": 0.67,  # Draws beyond +- this share of the rate are drawn again.
                    "noise_seed": 42,
                }
            ),
        }
    )


def choose(recipe: str, variant: str, variants: Iterable[str]) -> str:
    """Returns `variant` where it is one of `variants`; UserError that lists them otherwise.

    Args:
        recipe: path of the recipe, for the message.
        variant: the part of `--config` after the colon.
    """
    variants = list(variants)
    if variant not in variants:
        raise UserError(
            f"{recipe} has no variant {variant!r}; write {recipe}:VARIANT with one of {' '.join(variants)}."
            f"{suggest(variant, variants)}"
        )
    return variant


def save(config: ConfigDict, path: pathlib.Path) -> None:
    """Writes the record as JSON; `load` reads it back."""
    json_files.write(path, config.to_dict())


def load(path: pathlib.Path) -> ConfigDict:
    """Reads a record that `save` wrote (JSON's lists are tuples again)."""
    return ConfigDict(json_files.read(path))
