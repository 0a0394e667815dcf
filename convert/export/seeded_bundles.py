"""Writes bundles of networks with seeded random weights, to measure them without training."""

import copy
import pathlib
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from convert.bundle import Bundle
from convert.export.card import new_bundle
from convert.graph import seeded_networks
from convert.labels import class_map
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
    """Exports `model` to a bundle.

    The expected output in the bundle is PyTorch's, so that other machines are compared with an independent result. In
    int8 random weights lose their meaning, so there the expected output is the runtime's on this machine.

    Args:
        model: Network in its inference form, images [1, 3, H, W] -> logits.
        folder: Path of the bundle.
        task: "classification" or "segmentation".
        name: Name of the model size, such as "seaformer_tiny".
        kind: Format, one of `bundle.FORMATS`.
        input_size: H and W.
        precision: One of `bundle.PRECISIONS`.
    """
    runtime, maps, image = registry.find(kind), task == "segmentation", seeded_networks.picture(input_size)
    output = "logits8" if maps else "logits"  # The outputs that every runtime has.
    folder.mkdir(parents=True, exist_ok=True)
    # A copy, because an exporter changes the tensors, which can make the next exporter fail.
    graph = base.Graph(copy.deepcopy(model), task, output, input_size)
    runtime.export(graph, {precision: folder}, [image])
    bundle = new_bundle(folder, graph, name, kind, precision=precision, tail=class_map.NAME if maps else "")
    if precision == "int8":
        expected = runtime.load(bundle)(image)
    else:
        expected = base.joined([_in_torch(model, image)], "NCHW" if maps else "")
    bundle.write_reference(image, expected)
    bundle.write_card()
    return bundle


def write_plain_bundle(folder: pathlib.Path, name: str, input_size: tuple[int, int]) -> Bundle:
    """Exports a segmentation model in its training form to ONNX, with resize, softmax and argmax in the graph.

    This is the baseline for our exports: the test path of mmseg (`EncoderDecoder.simple_test`), written by the
    exporter and in the opset of the official convert2onnx.py. Exporter and opset matter for the number of
    instructions: SeaFormer-B at 512x512 takes 4480 million in this form, and in opset 13 6369 or 2679 million,
    depending on how the softmax is written.
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
    """Logits [1, C, h, w] -> labels int64 [1, H, W], by resize, softmax and argmax.

    This is what mmseg's `inference` and `simple_test` do.
    """

    def __init__(self, size: tuple[int, int]):
        super().__init__()
        self.size = size

    def forward(self, logits: Tensor) -> Tensor:
        resized = nn.functional.interpolate(logits, self.size, mode="bilinear", align_corners=False)
        return resized.softmax(1).argmax(1)


def write_plain_graph(model: nn.Module, path: pathlib.Path, input_size: tuple[int, int]) -> None:
    """Writes a model to ONNX with the exporter and in the opset of the official convert2onnx.py."""
    # Opset 11 lacks `unflatten`; the official code uses `reshape` there.
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
    """`Tensor.unflatten`, written with `reshape`."""
    return x.reshape(*x.shape[:axis], *sizes, *x.shape[axis + 1 :])


@torch.no_grad()
def _in_torch(model: nn.Module, image: np.ndarray) -> np.ndarray:
    """Returns the output of `model` in PyTorch for an image [1, H, W, 3], in the layout of PyTorch."""
    return model(torch.from_numpy(image).permute(0, 3, 1, 2)).numpy()
