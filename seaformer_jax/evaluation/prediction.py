"""Predicts labels with probabilities for image files."""

import itertools
import json
from collections.abc import Callable, Sequence

import jax
import numpy as np
from etils import epath
from flax import nnx

from seaformer_jax.data import images
from seaformer_jax.evaluation.report import draw_contact_sheet

_BATCH = 16
_SHEET = 36  # Images on the contact sheet.
_TOP = 5  # Labels listed per image.


def classify(
    model: nnx.Module,
    paths: Sequence[epath.Path],
    folder: epath.Path,
    transform: Callable[[dict], dict],
    normalize: Callable[[jax.Array], jax.Array],
    class_names: Sequence[str],
) -> int:
    """Writes `predictions.jsonl` (the five most likely labels of every image) and `contact_sheet.png`.

    Images that cannot be read are logged and left out.

    Args:
        model: Classifier.
        paths: Paths of the images.
        folder: Folder to write into.
        transform: Evaluation transform of an element {"image": uint8 [H, W, 3], "label"}.
        normalize: Turns images uint8 [B, S, S, 3] into the model's input.
        class_names: Names of the classes, in the order of the logits.
    Returns:
        The number of images that were classified.
    Raises:
        UserError: None of the images can be read.
    """
    graphdef, state = nnx.split(model)
    probabilities = jax.jit(
        lambda state, batch: jax.nn.softmax(nnx.merge(graphdef, state)(normalize(batch), train=False))
    )
    rows, sheet = [], []
    # The transform takes elements of a data set, which have a label; 0 is never used.
    elements = (
        (path, transform({"image": image, "label": 0})["image"]) for path, image in images.readable(paths)
    )
    while batch := list(itertools.islice(elements, _BATCH)):
        chunk, crops = zip(*batch, strict=True)
        padded = np.stack([*crops, *[crops[0]] * (_BATCH - len(crops))])  # One shape needs one compilation.
        rows += [
            _row(path, p, class_names)
            for path, p in zip(chunk, np.asarray(probabilities(state, padded)), strict=False)
        ]
        sheet += crops[: _SHEET - len(sheet)]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    # The contact sheet shows the first images, each under its most likely label.
    titles = [
        f"{row['top'][0]['label']} {100 * row['top'][0]['probability']:.0f}%" for row in rows[: len(sheet)]
    ]
    draw_contact_sheet(sheet, titles, folder / "contact_sheet.png")
    return len(rows)


def _row(path: epath.Path, probabilities: np.ndarray, class_names: Sequence[str]) -> dict:
    """Returns the line of `predictions.jsonl` of one image, from its probabilities [C]."""
    order = np.argsort(-probabilities)[:_TOP]
    top = [{"label": class_names[i], "probability": round(float(probabilities[i]), 6)} for i in order]
    return {"image": str(path), "top": top}
