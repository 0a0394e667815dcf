"""COCO's average precision, by pycocotools, and its tables."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from seaformer_jax import json_files
from seaformer_jax.data.detection.truth import Truth, to_coco

# The twelve numbers of `COCOeval.summarize`: average precision over the IoUs 0.5 to 0.95, at 0.5, at 0.75, and of
# small, medium and large objects (areas below 32^2, between, above 96^2); average recall with at most 1, 10 and 100
# boxes per image, and of the three sizes.
NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
_AP, _AP50 = slice(None), 0  # Thresholds of the IoU: all ten, and 0.5.


class Verdict(NamedTuple):
    """How well detections fit the labelled boxes.

    Attributes:
        scores: Name of `NAMES` -> share in [0, 1], or -1 if it is not defined.
        classes: Rows (name, number of labelled boxes, AP, AP50) with shares or NaN.
        detections: The detections in COCO's format of results.
    """

    scores: dict[str, float]
    classes: list[tuple[str, int, float, float]]
    detections: list[dict]

    def write(self, folder: epath.Path) -> None:
        """Writes `per_class.md` (AP, AP50 and labelled boxes of each class) and `detections.json`."""
        rows = ["| class | boxes | AP % | AP50 % |", "|---|---:|---:|---:|"]
        rows += [
            f"| {name} | {count} | {_percent(ap)} | {_percent(ap50)} |"
            for name, count, ap, ap50 in self.classes
        ]
        total = sum(count for _, count, _, _ in self.classes)
        means = f"{_percent(self.scores['AP'])} | {_percent(self.scores['AP50'])}"
        rows.append(f"| **mean** | {total} | {means} |")
        rows += ["", "| " + " | ".join(NAMES) + " |", "|" + "---:|" * len(NAMES)]
        rows.append("| " + " | ".join(_percent(self.scores[name]) for name in NAMES) + " |")
        (folder / "per_class.md").write_text("\n".join(rows) + "\n")
        json_files.write(folder / "detections.json", self.detections)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}" if share >= 0 else "-"  # Neither -1 nor NaN is.


class Judge:
    """Compares detections with the labelled boxes of a split.

    Args:
        truth: The annotations of the split, at least one.
        class_names: Names of the classes, in the order of the labels.
    """

    def __init__(self, truth: Truth, class_names: Sequence[str]):
        self._truth, self._names = truth, class_names
        self._coco = COCO()
        self._coco.dataset = to_coco(truth, class_names)
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress.
            self._coco.createIndex()

    def __call__(self, found: Mapping[str, np.ndarray]) -> Verdict:
        """Returns the verdict on the detections of all images.

        Args:
            found: `index` [N], the position of each image in `truth`, with `boxes` [N, D, 4] (x1, y1, x2, y2) in
                pixels of the original image, `scores` [N, D] and `labels` [N, D]; a score of 0 is no box.
        """
        detections = self._results(found)
        counts = np.bincount(self._truth.label[~self._truth.crowd], minlength=len(self._names))
        if not detections:  # pycocotools cannot load an empty list.
            zeros = [0.0 if count else float("nan") for count in counts]
            classes = list(zip(self._names, map(int, counts), zeros, zeros, strict=True))
            return Verdict(dict.fromkeys(NAMES, 0.0), classes, [])
        with contextlib.redirect_stdout(io.StringIO()):
            # `loadRes` adds entries to its argument.
            judged = COCOeval(self._coco, self._coco.loadRes([dict(d) for d in detections]), "bbox")
            judged.evaluate()
            judged.accumulate()
            judged.summarize()
        scores = dict(zip(NAMES, map(float, judged.stats), strict=True))
        aps, aps50 = (per_category(judged, thresholds) for thresholds in (_AP, _AP50))
        classes = list(zip(self._names, map(int, counts), aps, aps50, strict=True))
        return Verdict(scores, classes, detections)

    def _results(self, found: Mapping[str, np.ndarray]) -> list[dict]:
        """Returns the detections in COCO's format, by image and then from the best to the worst."""
        results = []
        for row in np.argsort(found["index"]):
            image = int(self._truth.image_ids[found["index"][row]])
            for box, score, label in zip(
                *(found[name][row] for name in ("boxes", "scores", "labels")), strict=True
            ):
                if score > 0:
                    x1, y1, x2, y2 = map(float, box)
                    results.append(
                        {
                            "image_id": image,
                            "category_id": int(self._truth.category_ids[label]),
                            "bbox": [x1, y1, x2 - x1, y2 - y1],
                            "score": float(score),
                        }
                    )
        return results


def per_category(judged: COCOeval, thresholds: slice | int) -> list[float]:
    """Returns the average precision of every category; NaN where there is no labelled box.

    Args:
        judged: After `accumulate`.
        thresholds: Indices of the IoU thresholds 0.5, 0.55, ..., 0.95.
    """
    precision = judged.eval["precision"][thresholds, ..., 0, 2]  # All areas, 100 boxes per image.
    columns = [precision[..., k] for k in range(precision.shape[-1])]
    return [float(c[c > -1].mean()) if (c > -1).any() else float("nan") for c in columns]
