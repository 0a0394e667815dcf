"""Draws and lists the boxes that a detector finds."""

from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from etils import epath
from flax import nnx

from seaformer_jax.detection.postprocess import Detections
from seaformer_jax.evaluation import box_lists, pictures

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

    def boxes(self, image: np.ndarray) -> Detections:
        """Returns the boxes in an image uint8 [H, W, 3] whose scores reach the threshold, best first."""
        batch = {name: value[None] for name, value in self._transform({"image": image}).items()}
        found = jax.tree.map(lambda x: np.asarray(x)[0], self._detect(self._state, batch))
        kept = found.scores >= max(self._threshold, np.finfo(np.float32).tiny)  # A score of 0 is no box.
        return Detections(*(values[kept] for values in found))

    def comparison(self, element: Element, path: epath.Path) -> None:
        """Writes two pictures of an element side by side: the labelled boxes, and the boxes that were found."""
        image, labels = element["image"], element["labels"]
        colours = box_lists.colours(self._names)
        names, colours = [self._names[k] for k in labels], [colours[k] for k in labels]
        labelled = pictures.draw_boxes(image, element["boxes"], names, colours)
        found = box_lists.draw(image, self.boxes(image), self._names)
        pictures.save(np.concatenate([labelled, found], 1), path)

    def write(self, paths: Sequence[epath.Path], folder: epath.Path) -> int:
        """Writes the boxes in the images at `paths` into `folder`, see `box_lists.write`."""
        return box_lists.write(paths, folder, self.boxes, self._names)
