"""Swin-Tiny, with any attention, on ImageNet-1K at 224 x 224 for 300 epochs: the paper's swap of attention.

    python -m seaformer_jax.train --config configs/swin_imagenet.py:tiny --workdir DIR --config.model.attention=sea

`model.attention` is one of vanilla, window, window_shift (Swin itself, and the default), axial_sum, axial_deeplab,
acmix_swin, acmix_conv, mixformer, sea and sea_plus; axial_deeplab also needs
`--config.model.attention_input=(224,224)`. Data: as for `configs/imagenet.py`.

Aim: 81.3 % top-1 for Swin-Tiny itself (table 1 of Liu et al. 2021, arXiv 2103.14030). The SeaFormer authors trained
the others with the same protocol; no ImageNet score of them could be found.

Meant for 8 accelerators and some 64 CPU cores. Time, estimated and not measured: 300 epochs are 384 million images
and take 107,000 / (images per second) hours. No run of full length has been made with this file.

Source: microsoft/Swin-Transformer, main.py, config.py and configs/swin/swin_tiny_patch4_window7_224.yaml. In short: 8
x 128 images, AdamW at 1e-3 with weight decay 0.05, a warm-up of 20 epochs from 1e-6 and a cosine to 1e-5, gradients
clipped to norm 5, drop path 0.2, RandAugment m9 mstd 0.5, mixup 0.8, CutMix 1.0, erasing 0.25, label smoothing 0.1,
no weight averaging. Biases, norms and tables of positions are not decayed.

**Another batch size**: the three learning rates are proportional to `--config.batch_size`, as in main.py.
"""

from ml_collections import ConfigDict

from configs.imagenet import IMAGES
from seaformer_jax.config import choose, default

EPOCHS, WARM_UP_EPOCHS = 300, 20


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of `variant`, "tiny".

    Raises:
        UserError: The variant is unknown.
    """
    size = choose("configs/swin_imagenet.py", variant, ("tiny",))
    c = default()
    c.batch_size = 1024
    batch = c.get_ref("batch_size")
    epoch, scale = IMAGES // batch, batch.to_float() / 512
    c.total_steps = epoch * EPOCHS
    c.dtype = "bfloat16"
    c.log_every = 100
    c.model.update({"name": f"swin_{size}", "drop_path_rate": 0.2})
    # BatchNorm, where an attention has it, normalises the 128 images of a GPU.
    c.model.bn_groups = (batch // c.optim.get_ref("accumulate") + 127) // 128
    c.data.update({"source": "tfds", "val_split": "validation", "workers": 16})
    c.augment.update({"mixup": 0.8, "cutmix": 1.0, "erasing": 0.25, "interpolation": "bicubic"})
    c.optim.update({"name": "adamw", "weight_decay": 0.05, "clip_norm": 5.0, "decay_tables": False})
    c.optim.lr = scale * 5e-4
    c.optim.ema_decay = 0.0
    c.optim.schedule.update({"name": "cosine", "warmup_steps": epoch * WARM_UP_EPOCHS})
    c.optim.schedule.warmup_init = scale * 5e-7
    c.optim.schedule.end_lr = scale * 5e-6
    c.eval.update({"every": epoch * 5, "batch_size": 1024, "use_ema": False})
    c.checkpoint.every = epoch * 5
    return c
