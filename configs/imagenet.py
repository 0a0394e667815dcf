"""SeaFormer classification pre-training on ImageNet-1K at 224 x 224, 600 epochs.

    python -m seaformer_jax.train --config configs/imagenet.py:tiny --workdir DIR

The part after the colon is `tiny`, `small`, `base` or `large`; `tiny,lamb` and `tiny,lars` (any size) change
the optimiser. Data: TFDS `imagenet2012` prepared as ArrayRecord in `--config.data.root`, or image folders:
`--config.data.source=folder --config.data.root=/data/imagenet --config.data.val_split=val`.

Aim: top-1 of the released checkpoints, 68.1 / 73.4 / 76.4 / 79.9 % (the official repository's README; its
first version had 67.9 / 73.1 / 75.9 / 79.4). Scores are of the averaged (EMA) weights.

Meant for 8 accelerators and some 64 CPU cores. Hours, an estimate and not a measurement: 600 epochs are 769
million images, so 214,000 / (images per second), e.g. 21 h at 10,000 images/s. The small sizes wait for
decoding and augmentation: raise `data.workers`. No run of full length has been made with this file.

Source: the official repository, seaformer-cls/README.md and the timm bundled with it. In short: 8 x 128
images, RMSpropTF at 0.064, x 0.973 every 2.4 epochs, set once per epoch; warm-up of 10 epochs (small: 40)
inside the 600; noise on the learning rate from 42 % of the epochs on; EMA 0.9999; mixup 0.2 (tiny: none).

Where the official code differs from what its command says, this file follows the code:
- `--drop 0.2 --drop-connect 0.2` reach no layer: there is no dropout, and drop path stays at the model's 0.1.
- Weight decay spares 1-D parameters and biases only, so the position tables are decayed, here too.
- BatchNorm statistics are those of each GPU's 128 images, hence `bn_groups`.

**Another batch size**: everything below follows `--config.batch_size`, unless itself set on the command line.
With k = batch_size / 1024:
- learning rate x k: EfficientNet's rule for this optimiser, 0.016 per 256 images (its own batch was 2048).
  The unchanged 0.064 with fewer GPUs gave users NaN (official issue #2).
- warm-up epochs x sqrt(k), rounded down: our choice.
- EMA decay 0.9999^k: an average over the same number of images.
- decay period, holding, noise, evaluation and run length stay the same in epochs, of 1281167 // batch_size
  steps.

**8192 images and more** (`,lamb` and `,lars`; 8192 unless set). Rates grow with the square root of the batch,
and warm-up is a constant number of steps. These are ResNet-50's settings, untried on SeaFormer: a starting
point for a search.
- LAMB (You et al. 2020, arXiv 1904.00962, and the authors' ImageNet script): 0.04 at 32768, warm-up of 20
  epochs there = 782 steps, linear decay to 0, weight decay 1.5, eps 1e-6, gradients clipped to norm 1.
- LARS (You et al. 2017, arXiv 1708.03888; rates of You et al. 2019, arXiv 1901.08256, table 4): 16 at 8192,
  warm-up of 2.5 epochs there = 391 steps, quadratic decay to 0, momentum 0.9, weight decay 1e-4.
"""

from ml_collections import ConfigDict, FieldReference

from seaformer_jax.config import choose, default

IMAGES = 1_281_167  # In the training split.
EPOCHS = 600
_MIXUP_AND_WARM_UP_EPOCHS = {"tiny": (0.0, 10), "small": (0.2, 40), "base": (0.2, 10), "large": (0.2, 10)}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe of `variant`: a size, optionally followed by ",lamb" or ",lars".

    Values that depend on the batch size are lazy: they follow `config.batch_size` until they are set.

    Raises:
        UserError: an unknown variant.
    """
    size, optimiser = _parse(variant)
    mixup, warm_up_epochs = _MIXUP_AND_WARM_UP_EPOCHS[size]
    c = default()
    c.batch_size = 8192 if optimiser else 1024
    batch = c.get_ref("batch_size")
    epoch = IMAGES // batch  # Steps; the incomplete last batch is dropped, as in timm.
    c.total_steps = epoch * EPOCHS
    c.dtype = "bfloat16"
    c.log_every = 100
    c.model.name = f"seaformer_{size}"
    # Groups of at most 128 of the images that the model sees at once.
    c.model.bn_groups = (batch // c.optim.get_ref("accumulate") + 127) // 128
    c.data.update({"source": "tfds", "val_split": "validation", "workers": 16})
    c.augment.mixup = mixup
    c.optim.ema_decay = FieldReference(0.9999) ** (batch.to_float() / 1024)
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
    scale = batch.to_float() / 1024
    optim.update({"name": "rmsprop_tf", "momentum": 0.9, "eps": 1e-3, "weight_decay": 2e-5})
    optim.lr = scale * 0.064
    optim.schedule.update({"name": "step", "warmup_init": 1e-6, "decay_rate": 0.973, "noise_limit": 0.67})
    optim.schedule.warmup_steps = (scale**0.5 * warm_up_epochs).to_int() * epoch
    optim.schedule.decay_steps = epoch.to_float() * 2.4
    optim.schedule.hold_steps = epoch.identity()
    optim.schedule.noise_from = epoch * (EPOCHS * 42 // 100)


def _large_batch(optim: ConfigDict, name: str, batch: FieldReference) -> None:
    root = (batch.to_float() / 8192) ** 0.5
    optim.name = name
    optim.schedule.update({"name": "poly", "warmup_init": 0.0})
    if name == "lamb":
        optim.update({"weight_decay": 1.5, "eps": 1e-6, "clip_norm": 1.0})
        optim.lr = root * 0.02
        optim.schedule.update({"warmup_steps": 782, "power": 1.0})
    else:
        optim.update({"weight_decay": 1e-4, "momentum": 0.9})
        optim.lr = root * 16.0
        optim.schedule.update({"warmup_steps": 391, "power": 2.0})
