"""SeaFormer classification: pre-training on ImageNet-1K at 224 x 224 for 600 epochs.

    python -m seaformer_jax.train --config configs/imagenet.py:tiny --workdir DIR

The part after the colon is a size: `tiny`, `small`, `base` or `large`. `tiny,lamb` and `tiny,lars` (any size) change
the optimiser. Data: TFDS `imagenet2012` prepared as ArrayRecord in `--config.data.root`, or image folders:
`--config.data.source=folder --config.data.root=/data/imagenet --config.data.val_split=val`.

Aim: top-1 of the released checkpoints, 68.1 / 73.4 / 76.4 / 79.9 % for the four sizes (the official repository's
README; its first version had 67.9 / 73.1 / 75.9 / 79.4). These are scores of the averaged (EMA) weights.

Meant for 8 accelerators and some 64 CPU cores. Time, estimated and not measured: 600 epochs are 769 million images
and take 214,000 / (images per second) hours, e.g. 21 h at 10,000 images/s. Decoding and augmentation limit the
small sizes, so raise `data.workers`. No run of full length has been made with this file.

Source: the official repository, seaformer-cls/README.md and the timm bundled with it. In short: 8 x 128 images,
RMSpropTF at 0.064, multiplied by 0.973 every 2.4 epochs and set once per epoch; a warm-up of 10 epochs (small: 40)
inside the 600; noise on the learning rate from 42 % of the epochs on; EMA 0.9999; mixup 0.2 (tiny: none).

The official code does not always do what its command says. This file follows the code:
- `--drop 0.2 --drop-connect 0.2` reach no layer: there is no dropout, and drop path stays at the model's 0.1.
- Weight decay skips only 1-D parameters and biases, so the position tables are decayed.
- BatchNorm statistics are those of each GPU's 128 images; `bn_groups` does the same here.

**Another batch size**: the values below follow `--config.batch_size`, unless the command line sets them too. With
k = batch_size / 1024:
- The learning rate is multiplied by k. This is EfficientNet's rule for this optimiser, 0.016 per 256 images (its own
  batch was 2048). Users who kept 0.064 with fewer GPUs got NaN (official issue #2).
- The warm-up epochs are multiplied by sqrt(k) and rounded down, which is our choice.
- The EMA decay is 0.9999^k, so that the average covers the same number of images.
- Decay period, holding, noise, evaluation and run length stay the same in epochs, of 1281167 // batch_size steps.

**8192 images and more** (`,lamb` and `,lars`; the batch is 8192 unless set). Learning rates grow with the square root
of the batch, and warm-up is a constant number of steps. These are settings for ResNet-50 and untried on SeaFormer:
a starting point for a search.
- LAMB (You et al. 2020, arXiv 1904.00962, and the authors' ImageNet script): 0.04 at 32768, a warm-up of 20 epochs
  at that batch = 782 steps, linear decay to 0, weight decay 1.5, eps 1e-6, gradients clipped to norm 1.
- LARS (You et al. 2017, arXiv 1708.03888; rates of You et al. 2019, arXiv 1901.08256, table 4): 16 at 8192, a warm-up
  of 2.5 epochs at that batch = 391 steps, quadratic decay to 0, momentum 0.9, weight decay 1e-4.

On TPUs, 128 images per chip make BatchNorm groups of one chip each (docs/pods.md): 1024 on 8 chips, 8192 on 64, and
32768 on 256, e.g. `--config configs/imagenet.py:tiny,lamb --config.batch_size=32768` with LAMB's rate of 0.04.
"""

from ml_collections import ConfigDict, FieldReference

from seaformer_jax.config import choose, default

IMAGES = 1_281_167  # Images in the training split.
EPOCHS = 600
# Size -> (alpha of mixup, epochs of warm-up).
_MIXUP_AND_WARM_UP_EPOCHS = {"tiny": (0.0, 10), "small": (0.2, 40), "base": (0.2, 10), "large": (0.2, 10)}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of `variant`: a size, optionally followed by ",lamb" or ",lars".

    Values that depend on the batch size are lazy: they follow `config.batch_size` until they are set themselves.

    Raises:
        UserError: The variant is unknown.
    """
    size, optimiser = _parse(variant)
    mixup, warm_up_epochs = _MIXUP_AND_WARM_UP_EPOCHS[size]
    c = default()
    c.batch_size = 8192 if optimiser else 1024
    batch = c.get_ref("batch_size")
    epoch = IMAGES // batch  # Steps per epoch; the incomplete last batch is dropped, as in timm.
    c.total_steps = epoch * EPOCHS
    c.dtype = "bfloat16"
    c.log_every = 100
    c.model.name = f"seaformer_{size}"
    # The images that the model sees at once, in groups of at most 128: rounded up, so that no group is larger.
    c.model.bn_groups = (batch // c.optim.get_ref("accumulate") + 127) // 128
    c.data.update({"source": "tfds", "val_split": "validation", "workers": 16})
    c.augment.mixup = mixup
    c.optim.ema_decay = FieldReference(0.9999) ** (batch.to_float() / 1024)
    c.optim.ema_warmup = False  # As timm's ModelEmaV2, which the official runs used.
    c.eval.every = epoch * 5
    c.eval.batch_size = 1024
    c.checkpoint.every = epoch * 5
    if optimiser:
        _large_batch(c.optim, optimiser, batch)
    else:
        _rmsprop(c.optim, batch, epoch, warm_up_epochs)
    return c


def _parse(variant: str) -> tuple[str, str]:
    variants = [size + after for size in _MIXUP_AND_WARM_UP_EPOCHS for after in ("", ",lamb", ",lars")]
    size, _, optimiser = choose("configs/imagenet.py", variant, variants).partition(",")
    return size, optimiser


def _rmsprop(optim: ConfigDict, batch: FieldReference, epoch: FieldReference, warm_up_epochs: int) -> None:
    """Sets the official optimiser; rate and warm-up follow `batch`, and periods are counted in `epoch` steps."""
    scale = batch.to_float() / 1024
    optim.update({"name": "rmsprop_tf", "momentum": 0.9, "eps": 1e-3, "weight_decay": 2e-5})
    optim.lr = scale * 0.064
    optim.schedule.update({"name": "step", "warmup_init": 1e-6, "decay_rate": 0.973, "noise_limit": 0.67})
    optim.schedule.warmup_steps = (scale**0.5 * warm_up_epochs).to_int() * epoch
    optim.schedule.decay_steps = epoch.to_float() * 2.4
    optim.schedule.hold_steps = epoch.identity()
    optim.schedule.noise_from = epoch * (EPOCHS * 42 // 100)


def _large_batch(optim: ConfigDict, name: str, batch: FieldReference) -> None:
    """Sets LAMB or LARS; the rate grows with the square root of `batch`."""
    root = (batch.to_float() / 8192) ** 0.5
    optim.name = name
    optim.schedule.update({"name": "poly", "warmup_init": 0.0})
    if name == "lamb":
        optim.update({"weight_decay": 1.5, "eps": 1e-6, "clip_norm": 1.0})
        optim.lr = root * 0.02  # 0.04 at 32768, four times the batch of 8192.
        optim.schedule.update({"warmup_steps": 782, "power": 1.0})
    else:
        optim.update({"weight_decay": 1e-4, "momentum": 0.9})
        optim.lr = root * 16.0
        optim.schedule.update({"warmup_steps": 391, "power": 2.0})
