"""Bundles of networks with seeded random weights: their cost is that of trained ones."""

import copy
import pathlib

import numpy as np
import torch
from torch import nn

from convert import deploy, runtimes, torch_model, torch_segmentation
from convert.bundle import Bundle

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as the official models take it
_CALIBRATION = (2, 4)  # Batches and images of them that give BatchNorm its statistics.


def seeded(task: str, name: str, input_size: tuple[int, int]) -> nn.Module:
    """Returns the inference form of a model (`deploy.deploy`) with weights that are the same every time.

    No branch is silent: BatchNorm has scale 1 everywhere and the statistics of noise, so that logits are spread.
    """
    torch.manual_seed(0)
    mirror = torch_model if task == "classification" else torch_segmentation
    model = mirror.create_model(name, drop_path_rate=0.0)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            module.momentum = None  # The plain average of the batches.
    batches, images = _CALIBRATION
    with torch.no_grad():
        for _ in range(batches):
            model.train()(torch.randn(images, 3, 256, 256))
    return deploy.deploy(model, input_size)


def picture(input_size: tuple[int, int]) -> np.ndarray:
    """A seeded, smooth, normalised image, float32 [1, H, W, 3]."""
    coarse = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    image = nn.functional.interpolate(coarse, input_size, mode="bicubic").permute(0, 2, 3, 1)
    return np.ascontiguousarray(image.numpy())


def write_bundle(
    model: nn.Module, folder: pathlib.Path, task: str, name: str, kind: str, input_size: tuple[int, int]
) -> Bundle:
    """Exports `model` [1, 3, H, W] -> logits to a bundle of format `kind` in fp32.

    What is expected of it is PyTorch's output, so that other machines are compared with an independent one.
    """
    runtime, maps = runtimes.find(kind), task == "segmentation"
    output = "logits8" if maps else "logits"
    folder.mkdir(parents=True, exist_ok=True)
    # A copy: what one exporter does to the tensors can make the next one fail.
    graph = runtimes.Graph(copy.deepcopy(model), task, output, input_size)
    runtime.export(graph, {"fp32": folder}, [])
    bundle = Bundle(
        folder=folder,
        task=task,
        name=name,
        format=kind,
        precision="fp32",
        output=output,
        tail="argmax_upsample" if maps else "",
        input_size=input_size,
        layout=runtime.LAYOUT,
        output_layout=runtime.OUTPUT_LAYOUTS[output] if maps else "",
        normalized_inside=False,
        mean=MEAN,
        std=STD,
        class_names=(),
        palette=(),
        source={"file": "seeded", "sha256": ""},
        versions={},
    )
    image = picture(input_size)
    with torch.no_grad():
        expected = model(torch.from_numpy(image).permute(0, 3, 1, 2))
    if maps:
        expected = expected.permute(0, 2, 3, 1)
    bundle.write_reference(image, np.ascontiguousarray(expected.numpy()))
    bundle.write_card()
    return bundle
