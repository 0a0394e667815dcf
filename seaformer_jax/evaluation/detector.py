"""Draws and lists the boxes that a detector finds."""

import json
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from etils import epath
from flax import nnx

from seaformer_jax.data import images
from seaformer_jax.data.labels import distinct_colours
from seaformer_jax.detection.postprocess import Detections
from seaformer_jax.evaluation import pictures

Element = Mapping[str, np.ndarray]


class Painter:
    """Finds and draws the boxes of a detector.

    Args:
        model: The detector.
        transform: Evaluation transform of an element {"image": uint8 [H, W, 3]}.
        detect: (model, batch) -> boxes of every image of a batch of such elements.
        class_names: Name of every class.
        threshold: Least score of the boxes that are drawn and listed.
    """

    def __init__(
        self,
        model: nnx.Module,
        transform: Callable[[Element], Element],
        detect: Callable[[nnx.Module, Mapping[str, jax.Array]], Detections],
        class_names: Sequence[str],
        threshold: float,
    ):
        graphdef, self._state = nnx.split(model)
        self._detect = jax.jit(lambda state, batch: detect(nnx.merge(graphdef, state), batch))
        self._transform, self._names, self._threshold = transform, class_names, threshold
        # Pascal's first colour is black.
        self._colours = distinct_colours(len(class_names) + 1)[1:]

    def boxes(self, image: np.ndarray) -> Detections:
        """Returns the boxes in an image uint8 [H, W, 3] whose scores reach the threshold, best first."""
        batch = {name: value[None] for name, value in self._transform({"image": image}).items()}
        found = jax.tree.map(lambda x: np.asarray(x)[0], self._detect(self._state, batch))
        kept = found.scores >= max(self._threshold, np.finfo(np.float32).tiny)  # A score of 0 is no box.
        return Detections(*(values[kept] for values in found))

    def draw(self, image: np.ndarray, found: Detections) -> np.ndarray:
        """Returns the image uint8 [H, W, 3] with boxes, names and scores."""
        names = [
            f"{self._names[label]} {100 * score:.0f}"
            for label, score in zip(found.labels, found.scores, strict=True)
        ]
        colours = [self._colours[label] for label in found.labels]
        return pictures.draw_boxes(image, found.boxes, names, colours)

    def comparison(self, element: Element, path: epath.Path) -> None:
        """Writes two pictures of an element side by side: the labelled boxes, and the boxes that were found."""
        image, labels = element["image"], element["labels"]
        names, colours = [self._names[k] for k in labels], [self._colours[k] for k in labels]
        labelled = pictures.draw_boxes(image, element["boxes"], names, colours)
        pictures.save(np.concatenate([labelled, self.draw(image, self.boxes(image))], 1), path)

    def write(self, paths: Sequence[epath.Path], folder: epath.Path) -> int:
        """Writes the boxes in the images at `paths` into `folder`; logs those that cannot be read.

        - `<name>_boxes.png`: the image with boxes, names and scores.
        - `predictions.jsonl`: for every image its boxes (x1, y1, x2, y2) in pixels, best first.

        A name is the image's file name without its extension; equal names are numbered.

        Returns:
            The number of images that were predicted.
        Raises:
            UserError: None of the images can be read.
        """
        rows = []
        names = dict(zip(paths, pictures.distinct_names(paths), strict=True))
        for path, image in images.readable(paths):
            found, name = self.boxes(image), f"{names[path]}_boxes.png"
            pictures.save(self.draw(image, found), folder / name)
            rows.append({"image": str(path), "picture": name, "boxes": self._rows(found)})
        (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return len(rows)

    def _rows(self, found: Detections) -> list[dict]:
        return [
            {
                "label": self._names[label],
                "score": round(float(score), 6),
                "box": [round(float(side), 2) for side in box],
            }
            for box, score, label in zip(*found, strict=True)
        ]
