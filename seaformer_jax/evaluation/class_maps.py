"""Writes the class maps that a model predicts for image files: masks, overlays, a legend and shares of classes.

JAX is not imported, because a device writes the same files.
"""

import collections
import json
from collections.abc import Callable, Sequence

import numpy as np
from etils import epath

from seaformer_jax.data import images
from seaformer_jax.evaluation import pictures


def write(
    paths: Sequence[epath.Path],
    folder: epath.Path,
    predict: Callable[[np.ndarray], np.ndarray],
    class_names: Sequence[str],
    palette: Sequence[pictures.Colour],
    heat: Callable[[np.ndarray], np.ndarray] | None = None,
) -> int:
    """Writes the predictions for the images at `paths` into `folder`; logs those that cannot be read.

    - `<name>_mask.png`: the class map; pixel values are classes, shown in the colours of the palette.
    - `<name>_overlay.png`: the mask over the image.
    - `<name>_heatmap.png`, with `heat` only: the heat map over the image.
    - `legend.png`: colours and names of the classes that occur, the largest first.
    - `predictions.jsonl`: the share of every class in every image.

    A name is the image's file name without its extension; equal names are numbered.

    Args:
        paths: Paths of the images.
        folder: Folder to write into.
        predict: Turns an image uint8 [H, W, 3] into the class of every pixel, uint8 [H, W].
        class_names: Name of every class.
        palette: Colour (red, green, blue) of every class.
        heat: Turns such an image into a heat map, float [h, w]; None for no heat maps.
    Returns:
        The number of images that were predicted.
    Raises:
        UserError: None of the images can be read.
    """
    totals, rows = collections.Counter(), []
    names = dict(zip(paths, pictures.distinct_names(paths), strict=True))
    for path, image in images.readable(paths):
        name, classes = names[path], predict(image)
        pictures.save_mask(classes, palette, folder / f"{name}_mask.png")
        pictures.save(pictures.overlay(image, classes, palette), folder / f"{name}_overlay.png")
        if heat is not None:
            pictures.save(pictures.heat_overlay(image, heat(image)), folder / f"{name}_heatmap.png")
        shares = _shares(classes, class_names)
        totals.update(shares)
        rows.append({"image": str(path), "mask": f"{name}_mask.png", "classes": shares})
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    # One legend for all images.
    colours = dict(zip(class_names, palette, strict=True))
    pictures.save_legend([(name, colours[name]) for name, _ in totals.most_common()], folder / "legend.png")
    return len(rows)


def _shares(classes: np.ndarray, class_names: Sequence[str]) -> dict[str, float]:
    """Returns the share of pixels of each class that occurs, the largest first."""
    counts = np.bincount(classes.ravel(), minlength=len(class_names))
    order = [k for k in np.argsort(-counts, kind="stable") if counts[k]]
    return {class_names[k]: round(float(counts[k] / classes.size), 6) for k in order}
