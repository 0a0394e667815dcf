"""SeaFormer segmentation on Cityscapes, 19 classes, 160,000 iterations.

    python -m seaformer_jax.train --config configs/cityscapes.py:small_1024x512 --workdir DIR \\
        --config.data.root=PATH/TO/cityscapes --config.init_from=CLASSIFIER

The part after the colon is `tiny`, `small`, `base` or `large`, and one of
- `_1024x512`: images of 1024 x 512, crops of the same size;
- `_1024x1024`: images of full size, 2048 x 1024, crops of 1024 x 1024.
The official repository has `small` and `base` only; `tiny` and `large` here differ from them in the model
alone. `data.root` holds `leftImg8bit/{train,val}` and `gtFine/{train,val}`; raw label ids are translated to
the 19 classes, and `*_labelTrainIds.png` are taken where they are there. `init_from` is the workdir of an
ImageNet run or an official checkpoint.

Aim, mIoU on `val`, whole image, one scale: the checkpoints that the official README lists,

|           | tiny | small | base |
|-----------|-----:|------:|-----:|
| 1024x512  | 66.8 |  71.1 | 72.2 |
| 1024x1024 |      |  76.4 | 77.7 |

(tiny: a table of the SiConMo paper, which does not say whose run it is). A user's run of base at full size
gave 76.7 (official issue #26).

The original has 8 GPUs with 1 image each; ours is the global batch of 8, over all devices. Meant for one to
eight accelerators and 16 CPU cores. Hours, an estimate and not a measurement: 1.28 million images, so 356 /
(images per second), e.g. 3.6 h at 100 images/s. Reading whole frames of 2048 x 1024 takes more of a CPU than
the training of most accelerators: raise `data.workers`. No run of full length has been made with this file.

Source: seaformer-seg/local_configs/seaformer/seaformer_{small,base}_{1024x512,1024x1024}_160k_1x8city.py.
AdamW at 3e-4, the rest as on ADE20K; quirks of the official code and their switches: see configs/ade20k.py.
The data set is repeated 500 times there, which only saves restarts of its loader.
"""

from ml_collections import ConfigDict

from seaformer_jax import config as configs

SIZES = ("tiny", "small", "base", "large")
# Long and short side of the resized image; height and width of the crop.
_SCALES = {"1024x512": ((1024, 512), (512, 1024)), "1024x1024": ((2048, 1024), (1024, 1024))}
VARIANTS = tuple(f"{size}_{resolution}" for size in SIZES for resolution in _SCALES)


def get_config(variant: str = "") -> ConfigDict:
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
    config.eval.update({"slide_crop": crop, "slide_stride": tuple(side * 2 // 3 for side in crop)})
    config.checkpoint.every = 4000
    return config
