"""Makes the `Bundle` that describes an exported model, before any file is written; all exports use it."""

import dataclasses
import pathlib
from collections.abc import Mapping

from convert.bundle import Bundle
from convert.export.preparation import Preparation
from convert.runtimes import base, registry
from convert.runtimes.base import Graph
from seaformer_jax.config import IMAGENET_MEAN, IMAGENET_STD
from seaformer_jax.data.labels import LabelSpec


def new_bundle(
    folder: pathlib.Path,
    graph: Graph,
    name: str,
    format: str,
    *,
    precision: str = "fp32",
    tail: str = "",
    preparation: Preparation | None = None,
    labels: LabelSpec | None = None,
    decoding: Mapping[str, float] | None = None,
    licence: str = "",
    source: Mapping[str, str] | None = None,
    versions: Mapping[str, str | None] | None = None,
) -> Bundle:
    """Returns the bundle for `graph` in a format, with the tensor layouts of that format's runtime.

    Args:
        folder: Path of the bundle.
        graph: The network that is exported.
        name: Name of the model size, such as "seaformer_tiny".
        format: One of `bundle.FORMATS`.
        precision, tail, decoding, licence: See `Bundle`.
        preparation: Preparation of the images; None if the caller normalises as for ImageNet.
        labels: Names and colours of the classes and the encoding of masks; None if they are unknown.
        source: "file" and "sha256" of the weights; None for seeded random weights, which have no file.
        versions: Package name -> version, for the packages that made the bundle.
    """
    runtime = registry.find(format)
    has_maps = graph.task == "segmentation"  # Only feature maps have a layout.
    preparation = preparation or Preparation.of(
        {}, task=graph.task, size=graph.input_size, mean=IMAGENET_MEAN, std=IMAGENET_STD, inside=False
    )
    encoding = dataclasses.asdict(labels or LabelSpec(()))
    class_names, palette = encoding.pop("class_names"), encoding.pop("palette")
    return Bundle(
        folder=folder,
        task=graph.task,
        name=name,
        format=format,
        precision=precision,
        output=graph.output,
        tail=tail,
        input_size=graph.input_size,
        input_type=graph.input_type,
        dynamic_batch=graph.dynamic_batch,
        tensors=_tensors(graph.output, runtime.NAMED),
        preprocessing=preparation.described(),
        layout=base.input_layout(graph.input_type, runtime.LAYOUT),
        output_layout=runtime.OUTPUT_LAYOUTS.get(graph.output, "") if has_maps else "",
        normalized_inside=preparation.inside,
        mean=tuple(preparation.mean),
        std=tuple(preparation.std),
        class_names=class_names,
        palette=palette,
        masks=encoding if has_maps else {},
        decoding=dict(decoding or {}),
        licence=licence,
        score={},
        source=dict(source or {"file": "seeded", "sha256": ""}),
        versions=dict(versions or {}),
    )


def _tensors(output: str, named: bool) -> dict[str, str]:
    """Returns `Bundle.tensors`; `named` is False for formats that have no names."""
    names = (base.INPUT, *base.names(output))
    return {
        key: name if named else "" for key, name in zip(("input", "output", "deltas"), names, strict=False)
    }
