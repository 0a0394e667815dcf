"""Measures what half precision and int8 do to SeaFormer-Tiny and -Base in every runtime: file, latency, labels.

    python -m experiments.precision --images PATH/TO/camvid/images [--sizes tiny,base] [--formats onnx,litert]

Tiny has the weights `camvid` that come with the package, and its labels of validation frames are compared with those
of the PyTorch model in float32. Base has seeded weights, whose labels mean nothing. int8 is calibrated with training
frames. The precisions of a size and format take turns on one pinned thread. A size and format that is not asked for
keeps its rows in experiments/results/precision.json; .md has the table. Needs the environment of
`experiments.deployment`.
"""

import argparse
import copy
import json
import pathlib
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from etils import epath
from torch import nn

from convert import torch_segmentation, weights
from convert.bundle import NATIVE, Bundle
from convert.export import parity
from convert.export.card import new_bundle
from convert.export.preparation import Preparation
from convert.graph import rewrites, seeded_networks
from convert.labels import class_map
from convert.latency.devices.registry import find
from convert.latency.turns import measure as measure_bundles
from convert.runtimes import base, registry
from experiments import measure
from seaformer_jax.config import IMAGENET_MEAN, IMAGENET_STD
from seaformer_jax.models.registry import create_model

RESULT, SIZE, TRAINED = "precision", (360, 480), "tiny"
CALIBRATION, COMPARED = 32, 20  # Frames, spread over the split.
NORMALIZATION = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}

Rows = dict[str, dict[str, list[dict[str, Any]]]]  # size -> format -> a row for each precision


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=pathlib.Path, required=True, help="folder with train and val")
    parser.add_argument("--sizes", default=f"{TRAINED},base")
    parser.add_argument("--formats", default=",".join(NATIVE))
    parser.add_argument("--runs", type=int, default=50)
    options = parser.parse_args()
    path = measure.RESULTS / f"{RESULT}.json"
    rows: Rows = json.loads(path.read_text())["rows"] if path.exists() else {}
    calibration, compared = (
        frames(options.images / split, count) for split, count in (("train", CALIBRATION), ("val", COMPARED))
    )
    for size in options.sizes.split(","):
        model = network(size)
        for kind in options.formats.split(","):
            print(f"{size}, {kind}", flush=True)
            rows.setdefault(size, {})[kind] = measured(model, size, kind, calibration, compared, options.runs)
            measure.write(RESULT, {"rows": rows})
    text = markdown(rows)
    (measure.RESULTS / f"{RESULT}.md").write_text(text)
    print(text)


def frames(folder: pathlib.Path, count: int) -> list[np.ndarray]:
    """Returns `count` frames, spread evenly over a folder, as the models take them: float32 [1, H, W, 3]."""
    preparation = Preparation.of({}, task="segmentation", size=SIZE, **NORMALIZATION, inside=False)
    paths = sorted(folder.iterdir())
    chosen = [paths[i * len(paths) // count] for i in range(count)]
    return [preparation.trained(preparation.read(epath.Path(path))) for path in chosen]


def network(size: str) -> nn.Module:
    """Returns the trained or the seeded segmentation model of a size in PyTorch, in evaluation mode."""
    name = f"seaformer_{size}"
    if size != TRAINED:
        return seeded_networks.trained("segmentation", name)
    ours = weights.to_torch(create_model(name, "segmentation", weights="camvid"))
    model = torch_segmentation.create_model(name, len(ours["decode_head.conv_seg.weight"]))
    model.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in ours.items()})
    return model.eval()


def measured(
    model: nn.Module,
    size: str,
    kind: str,
    calibration: Sequence[np.ndarray],
    compared: Sequence[np.ndarray],
    runs: int,
) -> list[dict[str, Any]]:
    """Returns a row for each precision of one model in the format `kind`."""
    expected = [outputs(model, image) for image in compared]
    with tempfile.TemporaryDirectory() as folder:
        bundles = write(model, pathlib.Path(folder), f"seaformer_{size}", kind, calibration, compared[0])
        rows = [
            row(bundle, expected, [registry.find(kind).load(bundle)(image) for image in compared])
            for bundle in bundles.values()
        ]
        report = measure_bundles(find("host", 1), list(bundles.values()), runs)
    for found, record in zip(rows, report["bundles"], strict=True):
        found["ms"] = round(statistics.median(record["samples"]["network"]), 3)
    return rows


def write(
    model: nn.Module,
    folder: pathlib.Path,
    name: str,
    kind: str,
    calibration: Sequence[np.ndarray],
    image: np.ndarray,
) -> Mapping[str, Bundle]:
    """Exports a model in every precision of a format; the reference of a bundle is its own output for `image`."""
    runtime = registry.find(kind)
    graph = base.Graph(rewrites.deploy(copy.deepcopy(model), SIZE), "segmentation", "logits8", SIZE)
    bundles = {
        precision: new_bundle(folder / precision, graph, name, kind, precision=precision, tail=class_map.NAME)
        for precision in runtime.PRECISIONS
    }
    for bundle in bundles.values():
        bundle.folder.mkdir()
    runtime.export(graph, {precision: bundle.folder for precision, bundle in bundles.items()}, calibration)
    for bundle in bundles.values():
        bundle.write_reference(image, runtime.load(bundle)(image))
        bundle.write_card()
    return bundles


def row(bundle: Bundle, expected: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> dict[str, Any]:
    """Returns a row without the latency; UserError if fp32 or fp16 is out of the tolerance of exports."""
    comparison = parity.compare(expected, found, parity.same_classes(SIZE))
    parity.check(comparison, bundle.precision)
    return {
        "precision": bundle.precision,
        "MB": round(bundle.size() / 1e6, 2),
        "relative RMS": comparison.relative_rms,
        "agreement": comparison.agreement,
    }


@torch.no_grad()
def outputs(model: nn.Module, image: np.ndarray) -> np.ndarray:
    """Returns the logits of the PyTorch model at 1/8, [1, h, w, classes]."""
    return model(torch.from_numpy(image).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()


def markdown(rows: Rows) -> str:
    """Returns the result file: one table of all sizes, formats and precisions."""
    table = []
    for size, formats in rows.items():
        for kind, found in formats.items():
            for one in found:
                trained = size == TRAINED
                table.append(
                    {
                        "model": size,
                        "format": kind,
                        "precision": one["precision"],
                        "MB": one["MB"],
                        "ms": one["ms"],
                        "fp32 ms / ms": found[0]["ms"] / one["ms"],
                        "labels as fp32 %": f"{100 * one['agreement']:.2f}" if trained else "",
                    }
                )
    cpu = measure.machine()["cpu"]
    return (
        f"# fp32, fp16 and int8, segmentation, {SIZE[0]}x{SIZE[1]}\n\n`python -m experiments.{RESULT}` on {cpu}, one "
        "thread pinned to a core: median ms from a normalised image to `logits8`; the precisions of a size and "
        f"format take turns. `{TRAINED}` has the weights `camvid` of the package; the last column is the share of "
        f"the pixels of {COMPARED} validation frames that have the label of the PyTorch model in float32. `base` has "
        f"seeded weights, so it has no such column. int8 is calibrated with {CALIBRATION} training frames. "
        "[`exports`](exports.md) has the mIoU of a trained `tiny`.\n\n"
        f"{measure.table(table)}\n"
    )


if __name__ == "__main__":
    main()
