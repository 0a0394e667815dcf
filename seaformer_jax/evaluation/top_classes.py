"""Writes the most likely classes that a model predicts for image files.

JAX is not imported, because a device writes the same files.
"""

import json
from collections.abc import Iterable, Sequence

import numpy as np
from etils import epath

from seaformer_jax.evaluation.report import draw_contact_sheet

_SHEET = 36  # Images on the contact sheet.
_TOP = 5  # Labels listed per image.

# Path of an image, the part of it that the model saw, uint8 [H, W, 3], and the probabilities [C].
Predicted = tuple[epath.Path, np.ndarray, np.ndarray]


def write(predicted: Iterable[Predicted], folder: epath.Path, class_names: Sequence[str]) -> int:
    """Writes `predictions.jsonl` (the five most likely labels of every image) and `contact_sheet.png`.

    Args:
        predicted: What the model predicts, image by image.
        folder: Folder to write into.
        class_names: Names of the classes, in the order of the probabilities.
    Returns:
        The number of images.
    """
    rows, sheet = [], []
    for path, crop, probabilities in predicted:
        rows.append(_row(path, probabilities, class_names))
        sheet += [crop][: _SHEET - len(sheet)]
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
