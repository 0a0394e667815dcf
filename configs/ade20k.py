"""SeaFormer segmentation on ADE20K, 150 classes, 160,000 iterations of 512 x 512 crops.

    python -m seaformer_jax.train --config configs/ade20k.py:tiny_2x8 --workdir DIR \\
        --config.data.root=PATH/TO/ADEChallengeData2016 --config.init_from=CLASSIFIER

The part after the colon is `tiny`, `small`, `base` or `large`, and `_2x8` or `_4x8` (no such part: `_2x8`):
the images per GPU and the GPUs of the original, 16 or 32 together. Ours is the global batch, 16 or 32, over
all devices. `data.root` holds `{images,annotations}/{training,validation}`. TFDS `scene_parse150` instead:
`--config.data.source=tfds --config.data.train_split=train --config.data.val_split=test`. `init_from` is the
workdir of an ImageNet run or an official checkpoint.

Aim, mIoU on `validation`, whole image, one scale: the checkpoints that the official README lists,

|     | tiny | small | base | large |
|-----|-----:|------:|-----:|------:|
| 2x8 | 35.0 |  38.9 | 41.2 |  43.0 |
| 4x8 | 36.5 |  39.5 | 41.9 |  43.8 |

The paper has 40.2 for base 2x8; 41.2 is the best of several runs with the same settings (official issue #3), so
runs differ by about a point.

Meant for one accelerator and 16 CPU cores, or more of both. Hours, an estimate and not a measurement: 2.56
million images (4x8: 5.12), so 711 / (images per second) hours, e.g. 1.8 h at 400 images/s. No run of full
length has been made with this file. In full precision, as the original; `--config.dtype=bfloat16` is faster.

Source: seaformer-seg/local_configs/seaformer/seaformer_*_512x512_160k_{2x8,4x8}_ade20k.py and their bases,
with mmcv 1.3.14. In short: AdamW at 2.5e-4 (tiny 2x8: 3e-4; 4x8: 5e-4), decay 0.01, linear decay to 0 and a
warm-up of 1500 iterations, BatchNorm over all GPUs, no averaging, no gradient clipping, no auxiliary head;
images are tested at multiples of 32.

What the official code does besides what its configs seem to say, here too, and how to have it otherwise:
- `norm` decay 0 matches no parameter, as BatchNorm's are called `bn`: they, and biases, are decayed. To spare
  them: `--config.optim.no_decay='(".*_position/table", ".*(scale|bias)")'`.
- `head` lr x 10 matches all of `decode_head`, fusion blocks included. For the last layer alone:
  `--config.optim.lr_multipliers='(("head/classify/.*", 10.0),)'`.
- `pos_emb` decay 0 matches the position tables.
- The summed loss is divided by the number of all pixels, ignored ones included. For the mean over labelled
  ones: `--config.task.loss_divisor=valid`.
"""

from ml_collections import ConfigDict

from seaformer_jax import config as configs

SIZES = ("tiny", "small", "base", "large")
VARIANTS = tuple(size + batch for size in SIZES for batch in ("", "_2x8", "_4x8"))


def get_config(variant: str = "") -> ConfigDict:
    size, _, batch = configs.choose("configs/ade20k.py", variant, VARIANTS).partition("_")
    config = configs.segmentation()
    config.model.name = f"seaformer_{size}"
    config.total_steps = 160_000
    config.batch_size = 32 if batch == "4x8" else 16
    config.optim.lr = 5e-4 if batch == "4x8" else {"tiny": 3e-4}.get(size, 2.5e-4)
    config.data.update({"source": "ade20k", "root": "data/ADEChallengeData2016", "workers": 8})
    config.data.update({"train_split": "training", "val_split": "validation"})
    config.data.update({"base_scale": (2048, 512), "crop_size": (512, 512)})
    config.eval.update({"scale": (2048, 512), "size_divisor": 32, "every": 4000, "batch_size": 8})
    config.eval.update({"slide_crop": (512, 512), "slide_stride": (341, 341)})
    config.checkpoint.every = 4000
    return config
