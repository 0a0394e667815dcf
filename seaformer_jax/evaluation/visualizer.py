"""Draws what a segmentation model predicts: colour masks, overlays, legends and heat maps."""

import collections
import json
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from etils import epath
from flax import nnx

from seaformer_jax.data import images
from seaformer_jax.data.segmentation.batches import padded_length
from seaformer_jax.evaluation import pictures

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
        """Writes the predictions for the images at `paths` into `folder`; logs those that cannot be read.

        - `<name>_mask.png`: the class map; pixel values are classes, shown in the colours of the palette.
        - `<name>_overlay.png`: the mask over the image.
        - `<name>_heatmap.png`: the channel mean of the last attention output over the image.
        - `legend.png`: colours and names of the classes that occur, the largest first.
        - `predictions.jsonl`: the share of every class in every image.

        A name is the image's file name without its extension; equal names are numbered.

        Args:
            paths: Paths of the images.
            folder: Folder to write into.
            heatmap: Whether to write the heat maps.
        Returns:
            The number of images that were predicted.
        Raises:
            UserError: None of the images can be read.
        """
        totals, rows = collections.Counter(), []
        names = dict(zip(paths, pictures.distinct_names(paths), strict=True))
        for path, image in images.readable(paths):
            name, classes = names[path], self.classes(image)
            pictures.save_mask(classes, self.palette, folder / f"{name}_mask.png")
            pictures.save(pictures.overlay(image, classes, self.palette), folder / f"{name}_overlay.png")
            if heatmap:
                heat = pictures.heat_overlay(image, self.attention(image))
                pictures.save(heat, folder / f"{name}_heatmap.png")
            shares = self._shares(classes)
            totals.update(shares)
            rows.append({"image": str(path), "mask": f"{name}_mask.png", "classes": shares})
        (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        # One legend for all images.
        colours = dict(zip(self.class_names, self.palette, strict=True))
        pictures.save_legend(
            [(name, colours[name]) for name, _ in totals.most_common()], folder / "legend.png"
        )
        return len(rows)

    def _shares(self, classes: np.ndarray) -> dict[str, float]:
        """Returns the share of pixels of each class that occurs, the largest first."""
        counts = np.bincount(classes.ravel(), minlength=len(self.class_names))
        order = [k for k in np.argsort(-counts, kind="stable") if counts[k]]
        return {self.class_names[k]: round(float(counts[k] / classes.size), 6) for k in order}
