"""SeaFormer segmentation on Cityscapes: 19 classes, 160,000 iterations.

    python -m seaformer_jax.train --config configs/cityscapes.py:small_1024x512 --workdir DIR \\
        --config.data.root=PATH/TO/cityscapes --config.init_from=CLASSIFIER

The part after the colon is a size (`tiny`, `small`, `base` or `large`), followed by one of
- `_1024x512`: images of 1024 x 512 and crops of the same size;
- `_1024x1024`: images of full size, 2048 x 1024, and crops of 1024 x 1024.
The official repository has only `small` and `base`; `tiny` and `large` differ from them here only in the model.
`data.root` holds `leftImg8bit/{train,val}` and `gtFine/{train,val}`. Raw label ids are mapped to the 19 classes;
where `*_labelTrainIds.png` files exist, they are used instead. `init_from` is the workdir of an ImageNet run or
an official checkpoint.

Aim: the mIoU on `val`, with whole images at one scale, that the official README lists for its checkpoints:

|           | tiny | small | base |
|-----------|-----:|------:|-----:|
| 1024x512  | 66.8 |  71.1 | 72.2 |
| 1024x1024 |      |  76.4 | 77.7 |

The score of tiny is from a table of the SiConMo paper, which does not say whose run it is. A user's run of base
at full size gave 76.7 (official issue #26).

The original has 8 GPUs with 1 image each; here 8 is the global batch over all devices. Meant for one to eight
accelerators and 16 CPU cores. Time, estimated and not measured: 1.28 million images take 356 / (images per
second) hours, e.g. 3.6 h at 100 images/s. Reading whole frames of 2048 x 1024 needs more CPU time than training
takes on most accelerators, so raise `data.workers`. No run of full length has been made with this file.

Source: seaformer-seg/local_configs/seaformer/seaformer_{small,base}_{1024x512,1024x1024}_160k_1x8city.py.
AdamW at 3e-4; the rest is as on ADE20K. configs/ade20k.py explains the quirks of the official code and the flags
that undo them. The original repeats the data set 500 times, which only avoids restarts of its loader.
"""

from ml_collections import ConfigDict

from seaformer_jax import config as configs

SIZES = ("tiny", "small", "base", "large")
# Resolution -> (long and short side of the resized image, height and width of the crop).
_SCALES = {"1024x512": ((1024, 512), (512, 1024)), "1024x1024": ((2048, 1024), (1024, 1024))}
VARIANTS = tuple(f"{size}_{resolution}" for size in SIZES for resolution in _SCALES)


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of `variant`, a size and a resolution such as "small_1024x512"."""
    size, _, resolution = configs.choose("configs/cityscapes.py", variant, VARIANTS).partition("_")
    scale, crop = _SCALES[resolution]
    config = configs.segmentation()
    config.model.name = f"seaformer_{size}"
    config.total_steps = 160_000
    config.batch_size = 8
    config.optim.lr = 3e-4
    config.data.update(
        {"source": "cityscapes", "root": "data/cityscapes", "name": "cityscapes", "workers": 16}
    )
    config.data.update({"base_scale": scale, "crop_size": crop})
    config.eval.update({"scale": scale, "every": 4000, "batch_size": 8})
    # Used only with --config.eval.mode=slide.
    config.eval.update({"slide_crop": crop, "slide_stride": tuple(side * 2 // 3 for side in crop)})
    config.checkpoint.every = 4000
    return config
