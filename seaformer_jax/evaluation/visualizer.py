"""Draws what a segmentation model predicts: colour masks, overlays, legends and heat maps."""

from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from etils import epath
from flax import nnx

from seaformer_jax.data.segmentation.batches import padded_length
from seaformer_jax.evaluation import class_maps, pictures

Element = Mapping[str, np.ndarray]


class Visualizer:
    """Predicts and draws the class maps of a segmentation model.

    Args:
        model: Segmentation model; heat maps need its `backbone.last_attention`.
        transform: Evaluation transform of an element {"image": uint8 [H, W, 3]}.
        normalize: Turns images uint8 [B, h, w, 3] into the model's input.
        predict: (model, batch) -> class of every pixel, int32 [B, Hp, Wp]. The batch has the entries of
            `data.segmentation.batches`.
        class_names: Name of every class.
        palette: Colour (red, green, blue) of every class.
    """

    def __init__(
        self,
        model: nnx.Module,
        transform: Callable[[Element], Element],
        normalize: Callable[[jax.Array], jax.Array],
        predict: Callable[[nnx.Module, Mapping[str, jax.Array]], jax.Array],
        class_names: Sequence[str],
        palette: Sequence[tuple[int, int, int]],
    ):
        graphdef, self._state = nnx.split(model)
        self._predict = jax.jit(lambda state, batch: predict(nnx.merge(graphdef, state), batch))
        self._attention = jax.jit(
            lambda state, batch: nnx.merge(graphdef, state).backbone.last_attention(normalize(batch)).mean(-1)
        )
        self._transform, self.class_names, self.palette = transform, class_names, palette

    def classes(self, image: np.ndarray) -> np.ndarray:
        """Returns the class of every pixel, uint8 [H, W], of an image uint8 [H, W, 3] of any size."""
        height, width = image.shape[:2]
        # Padded as in validation batches, so that fewer shapes are compiled. Only the label's shape matters here.
        padded = [padded_length(length) for length in (height, width)]
        element = {"label": np.zeros(padded, np.uint8), "label_size": np.array([height, width], np.int32)}
        element |= self._transform({"image": image})
        batch = {name: value[None] for name, value in element.items()}
        return np.asarray(self._predict(self._state, batch))[0, :height, :width].astype(np.uint8)

    def attention(self, image: np.ndarray) -> np.ndarray:
        """Returns the channel mean of the last attention output for an image uint8 [H, W, 3].

        float32 [h, w], at 1/64 of the model's input.
        """
        return np.asarray(self._attention(self._state, self._transform({"image": image})["image"][None]))[0]

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
