"""The part `train_speed`: the training step of every size and both tasks against PyTorch."""

import functools

from experiments import train_speed
from experiments.gpu_campaign.part import Part
from experiments.gpu_campaign.settings import Settings

NOTE = (
    "Training step (forward pass, loss, backward pass, AdamW) on data that is on the device. Both sides compute in "
    "bfloat16 with float32 weights. PyTorch: channels_last, autocast, `torch.compile` with CUDA graphs, fused AdamW. "
    "The floor is the step's bytes over the bandwidth of a large copy. `experiments/train_speed.py`"
)


def units(settings: Settings) -> dict:
    return {
        f"{task} {model}": functools.partial(measure, model, task, settings)
        for model in settings.models
        for task in settings.images
    }


def measure(model: str, task: str, settings: Settings) -> dict:
    """Returns the row of one model and task."""
    return {"task": task, **train_speed.compare(model, task, *settings.images[task], settings.rounds)}


PART = Part(NOTE, units)
