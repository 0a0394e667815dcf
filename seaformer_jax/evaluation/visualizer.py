"""Draws what a segmentation model predicts: colour masks, overlays, legends and heat maps."""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from etils import epath
from flax import nnx

from seaformer_jax.data.segmentation.buckets import Buckets
from seaformer_jax.evaluation import class_maps, pictures
from seaformer_jax.types import Batch


class Visualizer:
    """Predicts and draws the class maps of a segmentation model.

    Args:
        model: Segmentation model.
        buckets: Shapes that the images are padded to; they must know the size of every image.
        predict: (model, batch) -> class of every pixel, int32 [B, Hp, Wp]. The batch has the entries of
            `data.segmentation.batches`.
        attention: (model, batch) -> float maps [B, h, w] of the last attention, and the size of each, int [B, 2].
        class_names: Name of every class.
        palette: Colour (red, green, blue) of every class.
    """

    def __init__(
        self,
        model: nnx.Module,
        buckets: Buckets,
        predict: Callable[[nnx.Module, Batch], jax.Array],
        attention: Callable[[nnx.Module, Batch], tuple[jax.Array, jax.Array]],
        class_names: Sequence[str],
        palette: Sequence[tuple[int, int, int]],
    ):
        graphdef, self._state = nnx.split(model)
        self._predict, self._attention = (
            jax.jit(lambda state, batch, of=of: of(nnx.merge(graphdef, state), batch))
            for of in (predict, attention)
        )
        self._buckets, self.class_names, self.palette = buckets, class_names, palette

    def classes(self, image: np.ndarray) -> np.ndarray:
        """Returns the class of every pixel, uint8 [H, W], of an image uint8 [H, W, 3]."""
        height, width = image.shape[:2]
        return np.asarray(self._predict(self._state, self._batch(image)))[0, :height, :width].astype(np.uint8)

    def attention(self, image: np.ndarray) -> np.ndarray:
        """Returns the channel mean of the last attention output for an image uint8 [H, W, 3].

        float32 [h, w], at 1/64 of the model's input.
        """
        (heat,), ((height, width),) = map(np.asarray, self._attention(self._state, self._batch(image)))
        return heat[:height, :width]

    def _batch(self, image: np.ndarray) -> Batch:
        # Of the label only the shape matters.
        element = {"image": image, "label": np.zeros(image.shape[:2], np.uint8)}
        element = self._buckets.make(element, self._buckets.shapes_of(image.shape[:2]))
        return {name: np.asarray(value)[None] for name, value in element.items()}

    def comparison(self, image: np.ndarray, labels: np.ndarray, path: epath.Path) -> None:
        """Writes two overlays side by side: the labels (uint8 [H, W]) and the predicted classes."""
        overlays = [pictures.overlay(image, m, self.palette) for m in (labels, self.classes(image))]
        pictures.save(np.concatenate(overlays, 1), path)

    def write(self, paths: Sequence[epath.Path], folder: epath.Path, heatmap: bool) -> int:
        """Writes the predictions for the images at `paths` into `folder`, see `class_maps.write`.

        Args:
            paths: Paths of the images.
            folder: Folder to write into.
            heatmap: Whether to write the channel mean of the last attention output over each image.
        Returns:
            The number of images that were predicted.
        Raises:
            UserError: None of the images can be read.
        """
        heat = self.attention if heatmap else None
        return class_maps.write(paths, folder, self.classes, self.class_names, self.palette, heat)
