"""Bundles of networks with seeded random weights: their cost is that of trained ones."""

import copy
import dataclasses
import pathlib
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from convert import deploy, runtimes, torch_model, torch_segmentation
from convert.bundle import KERNEL, Bundle

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as the official models take it
_CALIBRATION = (2, 4)  # Batches and images of them that give BatchNorm its statistics.


def trained(task: str, name: str) -> nn.Module:
    """Returns a model in the form that it is trained in, with weights that are the same every time.

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
    return model.eval()


def seeded(task: str, name: str, input_size: tuple[int, int]) -> nn.Module:
    """Returns the inference form (`deploy.deploy`) of `trained`."""
    return deploy.deploy(trained(task, name), input_size)


def picture(input_size: tuple[int, int]) -> np.ndarray:
    """A seeded, smooth, normalised image, float32 [1, H, W, 3]."""
    coarse = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    image = nn.functional.interpolate(coarse, input_size, mode="bicubic").permute(0, 2, 3, 1)
    return np.ascontiguousarray(image.numpy())


def write_bundle(
    model: nn.Module,
    folder: pathlib.Path,
    task: str,
    name: str,
    kind: str,
    input_size: tuple[int, int],
    precision: str = "fp32",
) -> Bundle:
    """Exports `model` [1, 3, H, W] -> logits to a bundle of format `kind`.

    What is expected of it is PyTorch's output, so that other machines are compared with an independent one; of int8,
    in which random weights lose their meaning, it is what the runtime computes on this machine.
    """
    runtime, maps, image = runtimes.find(kind), task == "segmentation", picture(input_size)
    output = "logits8" if maps else "logits"
    folder.mkdir(parents=True, exist_ok=True)
    # A copy: what one exporter does to the tensors can make the next one fail.
    graph = runtimes.Graph(copy.deepcopy(model), task, output, input_size)
    runtime.export(graph, {precision: folder}, [image])
    bundle = dataclasses.replace(
        _bundle(folder, task, name, kind, input_size),
        precision=precision,
        output=output,
        tail=KERNEL if maps else "",
        layout=runtime.LAYOUT,
        output_layout=runtime.OUTPUT_LAYOUTS[output] if maps else "",
    )
    if precision == "int8":
        expected = runtime.load(bundle)(image)
    else:
        expected = runtimes.channels_last(_in_torch(model, image), "NCHW" if maps else "")
    bundle.write_reference(image, expected)
    bundle.write_card()
    return bundle


def write_plain_bundle(folder: pathlib.Path, name: str, input_size: tuple[int, int]) -> Bundle:
    """Exports a segmentation model as it was trained, with resize, softmax and argmax in the graph, to ONNX.

    This is what ours is compared with: the test path of mmseg (`EncoderDecoder.simple_test`), written by the exporter
    and in the opset of the official convert2onnx.py. The count hangs on these: SeaFormer-B at 512x512 takes 4480
    million instructions so, in opset 13 6369 or 2679 by how the softmax is written.
    """
    model = nn.Sequential(trained("segmentation", name), LabelsPath(input_size)).eval()
    bundle, image = _bundle(folder, "segmentation", name, "onnx", input_size), picture(input_size)
    folder.mkdir(parents=True, exist_ok=True)
    write_plain_graph(model, bundle.model, input_size)
    bundle.write_reference(image, _in_torch(model, image))
    bundle.write_card()
    return bundle


class LabelsPath(nn.Module):
    """Logits [1, C, h, w] -> int64 [1, H, W], as mmseg's `inference` and `simple_test`: resize, softmax, argmax."""

    def __init__(self, size: tuple[int, int]):
        super().__init__()
        self.size = size

    def forward(self, logits: Tensor) -> Tensor:
        resized = nn.functional.interpolate(logits, self.size, mode="bilinear", align_corners=False)
        return resized.softmax(1).argmax(1)


def write_plain_graph(model: nn.Module, path: pathlib.Path, input_size: tuple[int, int]) -> None:
    """Writes a model to ONNX with the exporter and in the opset of the official convert2onnx.py."""
    # The official code has reshape where ours has unflatten, which opset 11 lacks.
    with mock.patch.object(Tensor, "unflatten", _unflatten):
        torch.onnx.export(
            model,
            (torch.zeros(1, 3, *input_size),),
            str(path),
            dynamo=False,
            opset_version=11,
            input_names=["image"],
        )


def _unflatten(x: Tensor, axis: int, sizes: tuple[int, ...]) -> Tensor:
    return x.reshape(*x.shape[:axis], *sizes, *x.shape[axis + 1 :])


def _bundle(folder: pathlib.Path, task: str, name: str, kind: str, input_size: tuple[int, int]) -> Bundle:
    """The card of a model in fp32 that gives labels."""
    return Bundle(
        folder=folder,
        task=task,
        name=name,
        format=kind,
        precision="fp32",
        output="labels",
        tail="",
        input_size=input_size,
        layout="NCHW",
        output_layout="",
        normalized_inside=False,
        mean=MEAN,
        std=STD,
        class_names=(),
        palette=(),
        source={"file": "seeded", "sha256": ""},
        versions={},
    )


@torch.no_grad()
def _in_torch(model: nn.Module, image: np.ndarray) -> np.ndarray:
    """What `model` makes of an image [1, H, W, 3]."""
    return model(torch.from_numpy(image).permute(0, 3, 1, 2)).numpy()
