"""Networks with seeded random weights, which cost as much time as trained ones."""

import numpy as np
import torch
from torch import nn

from convert import torch_model, torch_segmentation
from convert.graph import rewrites
from convert.torch_attention import bare

_CALIBRATION = (2, 4)  # Batches, and images per batch, for the statistics of BatchNorm.


def trained(task: str, name: str) -> nn.Module:
    """Returns a model in its training form, in evaluation mode; its weights are the same on every call.

    No branch is silent: every BatchNorm has scale 1 and the statistics of noise images, so that the logits vary.

    Args:
        task: "classification" or "segmentation".
        name: Name of the model size, such as "seaformer_tiny".
    """
    # 1. Random weights, and scale 1 where a fresh model has 0.
    torch.manual_seed(0)
    mirror = torch_model if task == "classification" else torch_segmentation
    model = mirror.create_model(name, drop_path_rate=0.0)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            module.momentum = None  # Average over the batches.
    # 2. Statistics of BatchNorm, from batches of noise in training mode.
    batches, images = _CALIBRATION
    with torch.no_grad():
        for _ in range(batches):
            model.train()(torch.randn(images, 3, 256, 256))
    return model.eval()


def seeded(task: str, name: str, input_size: tuple[int, int]) -> nn.Module:
    """Returns the inference form (`rewrites.deploy`) of the network that `trained` returns."""
    return rewrites.deploy(trained(task, name), input_size)


def attention(kind: str, size: tuple[int, int], channels: int = 64, heads: int = 2) -> nn.Sequential:
    """Returns the inference form of a bare attention module with seeded weights, in an `nn.Sequential`.

    Args:
        kind: One of `seaformer_jax.models.attention.KINDS`.
        size: H and W of its feature map [1, channels, H, W].
        channels, heads: See `seaformer_jax.models.attention.create`.
    """
    torch.manual_seed(0)
    module = bare.create(kind, channels, heads, size)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.ones_(part.weight)  # SEA's start at 0, which would hide most of the module.
    return rewrites.rewritten(nn.Sequential(module), size, rewrites.REWRITES)


def picture(input_size: tuple[int, int]) -> np.ndarray:
    """Returns a seeded, smooth, normalised image, float32 [1, H, W, 3]."""
    coarse = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    image = nn.functional.interpolate(coarse, input_size, mode="bicubic").permute(0, 2, 3, 1)
    return np.ascontiguousarray(image.numpy())
