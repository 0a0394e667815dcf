"""SeaFormer segmentation on COCO-Stuff 10K: 171 classes, 80,000 iterations with crops of 512 x 512.

    python -m seaformer_jax.train --config configs/coco_stuff.py:tiny --workdir DIR \\
        --config.data.root=PATH/TO/coco_stuff10k --config.init_from=CLASSIFIER

The part after the colon is a size: `tiny`, `small`, `base` or `large`. `data.root` holds
`images/{train2014,test2014}`, `annotations/{train2014,test2014}/*_labelTrainIds.png` (1..171; 0 is ignored)
and `imageLists`. `init_from` is the workdir of an ImageNet run or an official checkpoint.

Aim: mIoU on `test2014`, with whole images at one scale. The official repository gives no scores. Papers that
cite it have: tiny 29.24 (SiConMo), base 33.29 (SSA-Seg, its own run), large 35.99 (SSA-Seg, its own run).

The original has 8 GPUs with 4 images each, 32 together, though its files are called `2x8`; here 32 is the global
batch over all devices. There is no official `large`; here it differs only in the model. Meant for one accelerator
and 16 CPU cores. Time, estimated and not measured: 2.56 million images take 711 / (images per second) hours,
e.g. 1.8 h at 400 images/s. No run of full length has been made with this file.

Source: seaformer-seg/local_configs/seaformer/seaformer_*_512x512_80k_2x8_cocostuff10k.py. AdamW at 2e-4; the rest
is as on ADE20K, but test images are not stretched to multiples of 32. configs/ade20k.py explains the quirks of
the official code and the flags that undo them.
"""

from ml_collections import ConfigDict

from seaformer_jax import config as configs

SIZES = ("tiny", "small", "base", "large")


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of `variant`, a size."""
    config = configs.segmentation()
    config.model.name = f"seaformer_{configs.choose('configs/coco_stuff.py', variant, SIZES)}"
    config.total_steps = 80_000
    config.batch_size = 32
    config.optim.lr = 2e-4
    config.data.update({"source": "coco_stuff", "root": "data/coco_stuff10k", "workers": 8})
    config.data.update({"train_split": "train2014", "val_split": "test2014"})
    config.data.update({"base_scale": (2048, 512), "crop_size": (512, 512)})
    config.eval.update({"scale": (2048, 512), "every": 4000, "batch_size": 8})
    # Used only with --config.eval.mode=slide.
    config.eval.update({"slide_crop": (512, 512), "slide_stride": (341, 341)})
    config.checkpoint.every = 4000
    return config
