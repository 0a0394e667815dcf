"""CamVid with another attention in SeaFormer-T that attends in three stages, for `experiments.attention_accuracy`.

    python -m seaformer_jax.train --config experiments/attention_recipe.py:KIND --workdir DIR \\
        --config.data.root=PATH/TO/camvid

KIND is one of `KINDS`. SeaFormer-T attends at 1/32 and 1/64 only, where CamVid's crops have 80 and 20 positions; this
model also attends at 1/16, as the large one does. Windows are 5x5, which divide the maps of the crops. Where a kind
has a width to choose, it has the one at which it costs as much as SEA attention on a crop.
"""

import dataclasses

from ml_collections import ConfigDict

from configs import camvid
from seaformer_jax.config import choose
from seaformer_jax.models.equal_macs import attention_widths
from seaformer_jax.models.variants import TINY, VARIANTS, SeaFormerConfig

NAME = "seaformer_tiny_three_stages"
KINDS = ("sea", "window", "axial_sum", "vanilla", "acmix_swin", "mixformer", "none")
_WINDOW = 5
_EQUAL = ("window", "axial_sum", "vanilla")


def register() -> None:
    """Makes the model known under `NAME`."""
    VARIANTS[NAME] = dataclasses.replace(
        TINY, depths=(2, 2, 2), key_dims=(16, 16, 24), ffn_ratios=(2, 2, 4), fusion_widths=(32, 64, 96)
    )


def options(kind: str) -> dict[str, object]:
    """Returns the model options of a kind."""
    chosen: dict[str, object] = {"attention": kind}
    if kind in ("window", "acmix_swin", "mixformer"):
        chosen["attention_window"] = _WINDOW
    if kind in _EQUAL:
        crop = camvid.get_config().data.crop_size
        config: SeaFormerConfig = dataclasses.replace(VARIANTS[NAME], **chosen)
        chosen["attention_widths"] = attention_widths(config, *crop)
    return chosen


def get_config(kind: str = "sea") -> ConfigDict:
    """Returns the config of a kind."""
    register()
    config = camvid.get_config("tiny")
    config.model.update({"name": NAME, **options(choose("experiments/attention_recipe.py", kind, KINDS))})
    return config
