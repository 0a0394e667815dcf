"""Makes the `Bundle` that describes an exported model, before any file is written; all exports use it."""

import pathlib
from collections.abc import Mapping, Sequence

from convert.bundle import Bundle
from convert.runtimes import registry
from convert.runtimes.base import Graph
from seaformer_jax.config import IMAGENET_MEAN, IMAGENET_STD


def new_bundle(
    folder: pathlib.Path,
    graph: Graph,
    name: str,
    format: str,
    *,
    precision: str = "fp32",
    tail: str = "",
    normalized_inside: bool = False,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    class_names: Sequence[str] = (),
    palette: Sequence[tuple[int, ...]] = (),
    decoding: Mapping[str, float] | None = None,
    source: Mapping[str, str] | None = None,
    versions: Mapping[str, str | None] | None = None,
) -> Bundle:
    """Returns the bundle for `graph` in a format, with the tensor layouts of that format's runtime.

    Args:
        folder: Path of the bundle.
        graph: The network that is exported.
        name: Name of the model size, such as "seaformer_tiny".
        format: One of `bundle.FORMATS`.
        precision, tail, normalized_inside, mean, std, class_names, palette, decoding: See `Bundle`.
        source: "file" and "sha256" of the weights; None for seeded random weights, which have no file.
        versions: Package name -> version, for the packages that made the bundle.
    """
    runtime = registry.find(format)
    has_maps = graph.task == "segmentation"  # Only feature maps have a layout.
    return Bundle(
        folder=folder,
        task=graph.task,
        name=name,
        format=format,
        precision=precision,
        output=graph.output,
        tail=tail,
        input_size=graph.input_size,
        layout=runtime.LAYOUT,
        output_layout=runtime.OUTPUT_LAYOUTS.get(graph.output, "") if has_maps else "",
        normalized_inside=normalized_inside,
        mean=tuple(mean),
        std=tuple(std),
        class_names=tuple(class_names),
        palette=tuple(palette),
        decoding=dict(decoding or {}),
        source=dict(source or {"file": "seeded", "sha256": ""}),
        versions=dict(versions or {}),
    )
