"""The config: every key of every recipe, with its default.

A recipe in `configs/` starts from `default()`, `segmentation()` or `detection()` and sets only the keys that differ;
`distillation()` adds the keys for training a student with a teacher. The command line sets single keys, e.g.
`--config.optim.lr=0.01`. An unknown key is an error, never silently ignored.
"""

from collections.abc import Callable, Iterable
from typing import Any

import ml_collections

from seaformer_jax.errors import UserError, suggest

ConfigDict = ml_collections.ConfigDict

# Mean and standard deviation of ImageNet's red, green and blue channel, for images in [0, 1]. All official weights
# use them.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def for_task(name: str) -> ConfigDict:
    """Returns the default config of the task `name`, one of `TASKS`."""
    return TASKS[name]()


def default() -> ConfigDict:
    """Returns the default config for classification, a run on `shapes` that a laptop can do."""
    c = _common()
    c.task = ConfigDict({"name": "classification", "num_classes": 0, "label_smoothing": 0.1})
    c.augment = _augment()
    c.eval.update({"batch_size": 100, "crop_fraction": 0.875, "interpolation": "bicubic"})
    return c


def segmentation() -> ConfigDict:
    """Returns the default config for segmentation: the official optimiser settings, on the data set `shapes`.

    The defaults are the values that the official recipes share (seaformer-seg/local_configs/seaformer).
    """
    c = _common()
    c.model.update(
        {
            "fusion_widths": (),  # Channels of each fusion block; () keeps those of the model size.
            # How a fusion block combines its two inputs: sigmoid_multiply | multiply | add | sigmoid_add.
            "fusion": "sigmoid_multiply",
        }
    )
    c.task = ConfigDict(
        {
            "name": "segmentation",
            "num_classes": 0,  # 0 takes the number of classes of the data set.
            # Pixels that divide the summed loss: "all" of them, as in mmseg, or only the "valid" (labelled) ones.
            "loss_divisor": "all",
        }
    )
    c.data.update(_segmentation_data())
    c.augment = ConfigDict(
        {
            "scale_range": (0.5, 2.0),  # Range of the random factor on data.base_scale.
            # No class may cover this share or more of a crop's labelled pixels; after ten draws any crop is taken.
            "cat_max_ratio": 0.75,
            "flip": 0.5,  # Probability of a horizontal flip.
            "photometric": True,  # Distort brightness, contrast, saturation and hue at random.
        }
    )
    c.optim.update({"lr": 2.5e-4, "weight_decay": 0.01, "ema_decay": 0.0})
    c.optim.update({"no_decay": (), "decay_tables": False})
    # The segmentation head and a distilled student's up-sampling module learn faster, because a pre-trained
    # classifier has neither of them.
    c.optim.lr_multipliers = ((r"(head|upsample)/.*", 10.0),)
    c.optim.schedule.update({"name": "poly", "warmup_steps": 1500})
    c.total_steps = 15_000  # Ten times the warm-up. Every recipe sets its own.
    c.optim.schedule.warmup_init = c.optim.get_ref("lr") * 1e-6
    c.eval.update(_segmentation_eval())
    return c


def detection() -> ConfigDict:
    """Returns the default config for detection: mmdetection's RetinaNet with AdamW, on the data set `shapes`."""
    c = _common()
    c.model.update(
        {
            "neck_width": 256,  # Channels of the feature pyramid and of the head.
            "tower_convs": 4,  # Convolutions in each tower of the head.
            # Side of the smallest square anchor of a level / stride of the level; 2 halves all anchors.
            "anchor_scale": 4.0,
        }
    )
    c.task = ConfigDict(
        {
            "name": "detection",
            "num_classes": 0,  # 0 takes the number of classes of the data set.
            # False normalises by the running statistics of the starting weights, as mmdetection does; for batches of
            # a few images.
            "batch_statistics": True,
        }
    )
    c.data.update(_detection_data())
    c.augment = ConfigDict(
        {
            "scale_range": (1.0, 1.0),  # Range of the random factor on data.scale.
            "flip": 0.5,  # Probability of a horizontal flip.
            "flip_vertical": 0.0,  # Probability of a vertical flip.
            "photometric": False,  # Distort brightness, contrast, saturation and hue at random.
        }
    )
    c.optim.update({"lr": 1e-4, "weight_decay": 1e-4, "ema_decay": 0.0, "no_decay": ()})
    c.optim.schedule.update({"name": "multistep", "decay_rate": 0.1, "warmup_steps": 500})
    c.optim.schedule.warmup_init = c.optim.get_ref("lr") * 1e-3
    c.eval.update(
        {
            "scale": (
                128,
                128,
            ),  # Largest (long, short) side of the resized image, which keeps its aspect ratio.
            # The sides are padded to multiples of this; images of the same padded size share batches.
            "pad_multiple": 32,
            "score_threshold": 0.05,  # Boxes with lower scores do not count.
            "per_level": 1000,  # Most pairs of anchor and class that a level of the pyramid proposes.
            "iou_threshold": 0.5,  # Of two boxes of a class that overlap by more only the better one is kept.
            "per_image": 100,  # Most boxes of an image.
            "draw_threshold": 0.3,  # Pictures show boxes with at least this score.
        }
    )
    return c


def distillation(record: ConfigDict) -> ConfigDict:
    """Changes `record` into a config for distillation and returns it.

    Data, schedule and evaluation keep the teacher's resolution; the student sees the images reduced in size.

    Args:
        record: Config for segmentation or classification.
    """
    record.task.name = f"distilled_{record.task.name}"
    # Side of the teacher's image / side of the student's image, at least 1.
    record.model.upsample_ratio = 2.0
    record.model.upsample_width = 0  # Channels of the compared features; taken from the teacher.
    record.teacher = ConfigDict(
        {
            "source": "",  # Workdir, or checkpoint file with the official parameter names.
            "model": "",  # Model name for a checkpoint file, which does not contain it, e.g. "seaformer_base".
            # Hash of the teacher's weights, set when they are read. A run stores it and refuses another teacher.
            "sha256": "",
        }
    )
    # Weights and temperature of the terms in distillation_losses.py; a term with weight 0 is not computed.
    record.distillation = ConfigDict(
        {"cross_weight": 1.0, "feature_weight": 1.0, "output_weight": 1.0, "temperature": 1.0}
    )
    return record


def _common() -> ConfigDict:
    c = ConfigDict()
    c.seed = 0  # Seed of the initial weights, the data order, the augmentation and drop path.
    c.total_steps = 1000  # Optimiser steps of the whole run, warm-up included.
    c.batch_size = 64  # Images per step on all devices of all hosts together.
    c.dtype = "float32"  # Compute type, float32 | bfloat16. Parameters, statistics and losses stay float32.
    c.log_every = 50  # Steps between progress lines.
    c.init_from = (
        ""  # Starting weights: a workdir, a file with the official names, or weights of the package.
    )
    c.compilation_cache = "~/.cache/seaformer_jax/xla"  # Folder of compiled programs; "" switches it off.
    c.model = _model()
    c.data = _data()
    c.optim = _optim()
    # every: steps between evaluations, 0 evaluates only at the end; batch_size: images on all devices together,
    # rounded up to a multiple of the devices; use_ema: evaluate the averaged weights if the run has them.
    c.eval = ConfigDict({"every": 500, "batch_size": 1, "use_ema": True})
    # every: steps between checkpoints, 0 saves only at the end; keep: how many of the newest checkpoints are kept.
    c.checkpoint = ConfigDict({"every": 500, "keep": 2})
    # steps: how many steps to trace with jax.profiler into WORKDIR/profile, 0 for none; skip: steps of this start of
    # the run before them, so that the trace shows the usual ones.
    c.profile = ConfigDict({"skip": 10, "steps": 0})
    # For several hosts: the arguments of jax.distributed.initialize. Empty values let JAX find them, which works on
    # TPU pods and with Slurm or Open MPI.
    c.distributed = ConfigDict({"enabled": False, "coordinator": "", "num_processes": 0, "process_id": -1})
    return c


def _model() -> ConfigDict:
    return ConfigDict(
        {
            "name": "seaformer_tiny",  # One of seaformer_jax.list_models(), or swin_tiny.
            # Drop-path probability of the last layer of each stage; it rises linearly from 0 within the stage.
            "drop_path_rate": 0.1,
            # Number of groups that the global (micro)batch is split into, each with its own BatchNorm statistics.
            "bn_groups": 1,
            # Attention of the model's layers: sea | sea_plus | enhancement (SEA's detail alone) | none | vanilla |
            # window | window_shift | axial_sum | axial_deeplab | acmix_swin | acmix_conv | mixformer; "" keeps the
            # model's own.
            "attention": "",
            "attention_widths": (),  # Channels of q, k and v in each stage with attention; () takes the stage's.
            "attention_window": 7,  # Side of a window on the feature map, for kinds with windows.
            "attention_input": (),  # axial_deeplab: (height, width) of the images in pixels, which its tables fix.
            # For SEA attention.
            "detail_input": "qkv",  # Input of detail enhancement: qkv | conv | upconv | none.
            "detail_combine": "multiply",  # How detail enhancement joins the attention: multiply | add.
            "position_embedding": True,
            # For the seaformer_plus models; explained in models/attention/sea.py.
            "adaptive": "",  # none | both | squeeze | expand; "" keeps the model's own value.
            "adaptive_source": "x",  # Input of the adaptive weights: x (the feature map) | q (the queries).
            "adaptive_shared": False,  # True uses the same adaptive weights for all heads.
            "adaptive_expansion": "linear",  # linear | sigmoid
        }
    )


def _data() -> ConfigDict:
    return ConfigDict(
        {
            "source": "shapes",  # shapes | folder | records | tfds
            # folder: holds <split>/<class>/*.jpg; records: --out of seaformer_jax.prepare; tfds: the data_dir.
            "root": "",
            "name": "imagenet2012",  # tfds: name of the data set.
            "train_split": "train",
            "val_split": "val",
            "image_size": 224,  # Height and width of the model's input in pixels.
            "mean": IMAGENET_MEAN,  # Per channel, for images in [0, 1].
            "std": IMAGENET_STD,  # Per channel, for images in [0, 1].
            "workers": 0,  # Processes that decode and augment; 0 uses threads of the main process.
            "on_corrupt": "error",  # What an image that cannot be decoded causes: error | skip.
            "train_size": 4096,  # shapes: images in the training split.
            "val_size": 512,  # shapes: images in the validation split.
        }
    )


def _segmentation_data() -> dict[str, Any]:
    """Returns the keys of `data` that segmentation adds or changes.

    data/segmentation/sources.py lists the values of `data.source` and the files that each expects in `data.root`.
    """
    return {
        "name": "scene_parse150",  # tfds: scene_parse150 | cityscapes.
        "image_size": 128,  # shapes: height and width of its images in pixels.
        # Largest (long, short) side of the resized training image, which keeps its aspect ratio;
        # augment.scale_range multiplies it.
        "base_scale": (128, 128),
        "crop_size": (128, 128),  # (height, width) of a training crop, multiples of 8.
        # The other keys are for the source `pairs`; data/labels.py explains the encodings of masks.
        "images": "images",  # Folder below root that holds <split>/ with the images.
        "annotations": "annotations",  # Folder below root that holds <split>/ with the masks.
        "class_names": (),  # One name per class.
        "palette": (),  # (red, green, blue) of each class; () chooses distinct colours.
        "reduce_zero_label": False,  # True ignores the value 0 and lowers the other values by 1.
        "ignore_label": 255,  # Value of pixels that are not labelled.
        "id_map": (),  # Pairs (value in the files, class or 255).
    }


def _detection_data() -> dict[str, Any]:
    """Returns the keys of `data` that detection adds or changes.

    data/detection/sources.py lists the values of `data.source` and the files that each expects in `data.root`.
    """
    return {
        "name": "coco/2017",  # tfds: name of the data set.
        "image_size": 128,  # shapes: height and width of its images in pixels.
        # coco: folder of the images and file of the boxes below root; {split} stands for the name of the split.
        "images": "{split}",
        "annotations": "annotations/instances_{split}.json",
        # Largest (long, short) side of the resized training image, which keeps its aspect ratio;
        # augment.scale_range multiplies it.
        "scale": (128, 128),
        # The (height, width) that training images are padded to, each to the smallest that holds it; multiples of 32.
        # The training step is compiled for each of them.
        "buckets": ((128, 128),),
        "max_boxes": 100,  # Most boxes of a training image.
    }


def _segmentation_eval() -> dict[str, Any]:
    """Returns the keys of `eval` that segmentation adds."""
    return {
        "scale": (128, 128),  # Largest (long, short) side of the resized image, which keeps its aspect ratio.
        "size_divisor": 0,  # Stretches the resized image to multiples of this; 0 leaves its size.
        "mode": "whole",  # Input of the model: the whole image, or windows that slide over it (slide).
        "slide_crop": (128, 128),  # slide: (height, width) of a window.
        "slide_stride": (85, 85),  # slide: (down, right) pixels from one window to the next.
        "scales": (1.0,),  # Factors on `scale`; the class probabilities of all scales are averaged.
        "flip": False,  # True also averages over the mirrored image.
    }


def _augment() -> ConfigDict:
    return ConfigDict(
        {
            "crop_scale": (0.08, 1.0),  # Range of a crop's share of the image's area.
            "crop_ratio": (3 / 4, 4 / 3),  # Range of a crop's width / height.
            "interpolation": "random",  # random (bilinear or bicubic) | bilinear | bicubic
            "flip": 0.5,  # Probability of a horizontal flip.
            # Where flips and RandAugment happen: in the training step (True), or on the host (False). With
            # data.source=records, crops are resized there, too.
            "on_device": False,
            "rand_augment": "rand-m9-mstd0.5",  # RandAugment in timm's notation; "" switches it off.
            "erasing": 0.2,  # Probability of random erasing.
            "mixup": 0.0,  # Alpha of mixup; 0 switches it off.
            "cutmix": 0.0,  # Alpha of CutMix; 0 switches it off.
            "mix_group": 128,  # Images that share one mixing factor: the official batch per GPU.
        }
    )


def _optim() -> ConfigDict:
    return ConfigDict(
        {
            "name": "adamw",  # rmsprop_tf | adamw | sgd | lamb | lars
            "lr": 1e-3,  # Base learning rate, for the whole batch.
            "weight_decay": 0.05,
            "momentum": 0.9,  # rmsprop_tf, sgd (Nesterov), lars
            "b1": 0.9,  # adamw, lamb
            "b2": 0.999,  # adamw, lamb
            "eps": 1e-8,
            "rms_decay": 0.9,  # rmsprop_tf
            "clip_norm": 0.0,  # Largest global norm of the gradient; 0 switches clipping off.
            "accumulate": 1,  # Microbatches per step, each of batch_size / accumulate images.
            # Parameters without weight decay: regular expressions on their paths.
            "no_decay": (r".*(scale|bias)$",),
            # False also leaves out the tables of positions of any attention, and the rates of ACmix.
            "decay_tables": True,
            "lr_multipliers": (),  # ((regular expression on parameter paths, factor), ...)
            "ema_decay": 0.9999,  # Decay of the moving average of the weights; 0 switches it off.
            "ema_warmup": True,  # The decay rises to ema_decay, so that the initial weights are soon gone.
            "schedule": ConfigDict(
                {
                    "name": "cosine",  # step | multistep | cosine | poly
                    "warmup_steps": 100,  # Counted inside total_steps.
                    "warmup_init": 1e-6,  # Learning rate at step 0; in mmcv it is lr times the warm-up ratio.
                    "end_lr": 0.0,  # cosine, poly: learning rate at the end.
                    "power": 1.0,  # poly: exponent of the decay.
                    "decay_steps": 1.0,  # step: the rate is multiplied by decay_rate once in this many steps.
                    "decay_rate": 0.973,  # step, multistep
                    "milestones": (),  # multistep: steps at which the rate is multiplied by decay_rate.
                    "hold_steps": 1,  # The rate changes only every hold_steps steps (an epoch in timm).
                    "noise_from": 0,  # First step with noise on the rate; 0 switches the noise off.
                    "noise_limit": 0.67,  # Limit of the noise as a share of the rate; larger draws are repeated.
                    "noise_seed": 42,
                }
            ),
        }
    )


# Name of a task, see tasks/__init__.py -> its default config.
TASKS: dict[str, Callable[[], ConfigDict]] = {
    "classification": default,
    "segmentation": segmentation,
    "detection": detection,
    "distilled_classification": lambda: distillation(default()),
    "distilled_segmentation": lambda: distillation(segmentation()),
}


def choose(recipe: str, variant: str, variants: Iterable[str]) -> str:
    """Returns `variant` after checking that the recipe has it.

    Args:
        recipe: Path of the recipe, for the error message.
        variant: The part of `--config` after the colon.
        variants: Names of the variants that the recipe has.
    Raises:
        UserError: `variant` is not one of `variants`; the message lists them.
    """
    variants = list(variants)
    if variant not in variants:
        raise UserError(
            f"{recipe} has no variant {variant!r}; write {recipe}:VARIANT with one of {' '.join(variants)}."
            f"{suggest(variant, variants)}"
        )
    return variant
