"""The tests' own models: the smallest SeaFormers that have every part, in JAX and in the PyTorch mirror.

They have names of their own, so recipes and commands find them like any other model once `register` has been called.
"""

import dataclasses

from experiments.campaign import recipe
from seaformer_jax.models.variants import InvertedResidualSpec, SeaFormerConfig

NANO = SeaFormerConfig(
    stem=8,
    stages=((InvertedResidualSpec(3, 2, 8, 2),),),
    depths=(2,),
    key_dims=(4,),
    ffn_ratios=(2,),
    heads=2,
)
NANO_WIDE = dataclasses.replace(NANO, stages=((InvertedResidualSpec(3, 2, 16, 2),),))
# Segmentation needs the map at 1/8 and fusion blocks.
NANO_SEGMENTATION = recipe.SMALLEST
# Two stages of attention, two kernel sizes, two fusion blocks.
MINI = SeaFormerConfig(
    stem=8,
    stages=(
        (InvertedResidualSpec(3, 1, 8, 2),),
        (InvertedResidualSpec(3, 2, 16, 2),),
        (InvertedResidualSpec(5, 2, 24, 2),),
        (InvertedResidualSpec(3, 2, 20, 2),),
    ),
    depths=(1, 2),
    key_dims=(4, 6),
    ffn_ratios=(2, 2),
    heads=2,
    fusion_widths=(12, 16),
)
# Detection needs the maps at 1/8 to 1/64.
NANO_DETECTION = recipe.SMALLEST_DETECTOR
MODELS = {
    "nano": NANO,
    "nano_wide": NANO_WIDE,
    "nano_segmentation": NANO_SEGMENTATION,
    "nano_segmentation_wide": dataclasses.replace(NANO_SEGMENTATION, fusion_widths=(12,)),
    "nano_detection": NANO_DETECTION,
    "mini": MINI,
}


def register() -> None:
    """Makes the models known to `seaformer_jax` and to the PyTorch mirror."""
    recipe.make_known(MODELS)
