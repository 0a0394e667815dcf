"""SeaFormer segmentation on Pascal Context: 59 or 60 classes, 80,000 iterations with crops of 480 x 480.

    python -m seaformer_jax.train --config configs/pascal_context.py:tiny_59 --workdir DIR \\
        --config.data.root=PATH/TO/VOCdevkit/VOC2010 --config.init_from=CLASSIFIER

The part after the colon is a size (`tiny`, `small`, `base` or `large`), followed by `_59` or `_60`. With 60
classes the background is a class; with 59 it is ignored. `data.root` holds `JPEGImages`,
`SegmentationClassContext` and `ImageSets/SegmentationContext/{train,val}.txt`. `init_from` is the workdir of an
ImageNet run or an official checkpoint.

Aim: mIoU on `val`, with whole images at one scale. The official repository gives no scores. Papers that cite it
have for 59 / 60 classes: tiny 41.49 / 37.27 (SiConMo), base 45.75 (SSA-Seg, its own run), large 49.14 (SSA-Seg,
its own run).

The original has 8 GPUs with 4 images each, 32 together, though its files are called `2x8`. Small with 60 classes
has 2 images each, 16 together, at the same learning rate. Here 32 or 16 is the global batch over all devices.
There is no official `large`; here it differs only in the model. Meant for one accelerator and 16 CPU cores. Time,
estimated and not measured: 2.56 million images take 711 / (images per second) hours, e.g. 1.8 h at 400 images/s.
No run of full length has been made with this file.

Source: seaformer-seg/local_configs/seaformer/seaformer_*_480x480_80k_2x8_pascalcontext{,_59}.py. AdamW at 2e-4;
the rest is as on ADE20K. configs/ade20k.py explains the quirks of the official code and the flags that undo them.
"""

from ml_collections import ConfigDict

from seaformer_jax import config as configs

SIZES = ("tiny", "small", "base", "large")
VARIANTS = tuple(f"{size}_{classes}" for size in SIZES for classes in ("59", "60"))


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of `variant`, a size and a number of classes such as "tiny_59"."""
    size, _, classes = configs.choose("configs/pascal_context.py", variant, VARIANTS).partition("_")
    config = configs.segmentation()
    config.model.name = f"seaformer_{size}"
    config.total_steps = 80_000
    config.batch_size = 16 if variant == "small_60" else 32
    config.optim.lr = 2e-4
    config.data.source = "pascal_context_59" if classes == "59" else "pascal_context"
    config.data.update({"root": "data/VOCdevkit/VOC2010", "workers": 8})
    config.data.update({"base_scale": (520, 520), "crop_size": (480, 480)})
    config.eval.update({"scale": (520, 520), "every": 4000, "batch_size": 8})
    # Used only with --config.eval.mode=slide.
    config.eval.update({"slide_crop": (480, 480), "slide_stride": (320, 320)})
    config.checkpoint.every = 4000
    return config
