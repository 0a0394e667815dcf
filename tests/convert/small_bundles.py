"""Bundles of a small network with random weights that normalises its input; quicker to write than an export."""

import numpy as np
import pytest
import torch

from convert import torch_model, torch_segmentation
from convert.bundle import Bundle
from convert.export.card import new_bundle
from convert.export.preparation import Preparation
from convert.graph import input_layers, rewrites
from convert.runtimes import registry
from convert.runtimes.base import Graph
from convert.web import library
from seaformer_jax.data.labels import LabelSpec, distinct_colours
from seaformer_jax.errors import UserError
from tests import toys
from tests.convert.alive import alive

SIZE = (64, 96)
NAMES = ("cat", "dog", "eel")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
_MIRRORS = {"classification": torch_model, "segmentation": torch_segmentation}


def network(task: str) -> torch.nn.Module:
    """Returns a network in its training form, which takes normalised images [B, 3, H, W]."""
    toys.register()
    torch.manual_seed(0)
    return alive(_MIRRORS[task].create_model("mini", len(NAMES)), SIZE)


def write(
    folder, trained: torch.nn.Module, task: str, format_: str, output: str, precision: str = "fp32", **fields
) -> Bundle:
    """Exports a network; skips the test if the runtime is not installed or out of reach.

    Args:
        folder: Existing folder, which becomes the bundle.
        trained: Network of `network`.
        task: "classification" or "segmentation".
        format_: One of `bundle.FORMATS`.
        output: See `Graph`.
        precision: One of the format's; int8 is calibrated on one image of noise.
        **fields: Other fields of the `Graph`.
    """
    try:
        runtime = registry.find(format_)
        if format_ == "web":
            library.fetched()
    except UserError as error:
        pytest.skip(str(error))
    most = 255 if fields.get("input_type") == "uint8" else 1
    model = rewrites.deploy(trained, SIZE, [[most * value for value in values] for values in (MEAN, STD)])
    graph = Graph(input_layers.from_camera(model) if most == 255 else model, task, output, SIZE, **fields)
    preparation = Preparation(task, SIZE, MEAN, STD, True, 0.875, "bicubic", graph.input_type)
    labels = LabelSpec(NAMES, distinct_colours(len(NAMES)))
    shown = {"preparation": preparation, "labels": labels, "licence": "MIT"}
    made = new_bundle(folder, graph, "mini", format_, precision=precision, **shown)
    image = preparation.exported(np.random.default_rng(1).integers(0, 256, (*SIZE, 3), np.uint8))
    runtime.export(graph, {precision: folder}, [image])
    runtime.annotate(made)
    made.write_reference(image, runtime.load(made)(image))
    made.write_card()
    return made
