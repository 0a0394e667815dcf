"""Bundles of networks with seeded random weights, to measure before anything is trained."""

import copy
import pathlib
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from convert.bundle import KERNEL, Bundle
from convert.export.card import new_bundle
from convert.graph import seeded_networks
from convert.runtimes import base, registry


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
    runtime, maps, image = registry.find(kind), task == "segmentation", seeded_networks.picture(input_size)
    output = "logits8" if maps else "logits"
    folder.mkdir(parents=True, exist_ok=True)
    # A copy: what one exporter does to the tensors can make the next one fail.
    graph = base.Graph(copy.deepcopy(model), task, output, input_size)
    runtime.export(graph, {precision: folder}, [image])
    bundle = new_bundle(folder, graph, name, kind, precision=precision, tail=KERNEL if maps else "")
    if precision == "int8":
        expected = runtime.load(bundle)(image)
    else:
        expected = base.channels_last(_in_torch(model, image), "NCHW" if maps else "")
    bundle.write_reference(image, expected)
    bundle.write_card()
    return bundle


def write_plain_bundle(folder: pathlib.Path, name: str, input_size: tuple[int, int]) -> Bundle:
    """Exports a segmentation model as it was trained, with resize, softmax and argmax in the graph, to ONNX.

    This is what ours is compared with: the test path of mmseg (`EncoderDecoder.simple_test`), written by the exporter
    and in the opset of the official convert2onnx.py. The count hangs on these: SeaFormer-B at 512x512 takes 4480
    million instructions so, in opset 13 6369 or 2679 by how the softmax is written.
    """
    model = nn.Sequential(seeded_networks.trained("segmentation", name), LabelsPath(input_size)).eval()
    graph, image = (
        base.Graph(model, "segmentation", "labels", input_size),
        seeded_networks.picture(input_size),
    )
    bundle = new_bundle(folder, graph, name, "onnx")
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


@torch.no_grad()
def _in_torch(model: nn.Module, image: np.ndarray) -> np.ndarray:
    """What `model` makes of an image [1, H, W, 3]."""
    return model(torch.from_numpy(image).permute(0, 3, 1, 2)).numpy()
