"""The part `evaluation`: class maps of whole images against PyTorch."""

import functools

from experiments import segmentation_speed
from experiments.gpu_campaign.part import Part
from experiments.gpu_campaign.settings import Settings

NOTE = (
    f"From one normalised image on the device to the class of every pixel on the host, {segmentation_speed.CLASSES} "
    "classes, both sides in bfloat16. PyTorch: channels_last, `torch.compile` with CUDA graphs, and the test path of "
    "mmseg (resized logits, softmax, argmax). `experiments/segmentation_speed.py`"
)


def units(settings: Settings) -> dict:
    return {model: functools.partial(measure, model, settings) for model in settings.models}


def measure(model: str, settings: Settings) -> dict:
    """Returns the row of one model, with images per second."""
    row = segmentation_speed.compare(model, *settings.frame, settings.rounds)
    return row | {f"{side}_images_per_second": 1e3 / row[f"{side}_ms"] for side in ("jax", "torch")}


PART = Part(NOTE, units)
