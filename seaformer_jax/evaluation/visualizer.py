"""Class maps of images: colour masks, overlays, legends and heat maps."""

import collections
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from flax import nnx

from seaformer_jax.data import images
from seaformer_jax.evaluation import pictures
from seaformer_jax.evaluation.inference import LABEL_MULTIPLE

Element = Mapping[str, np.ndarray]


class Visualizer:
    """Draws what a segmentation model sees.

    Args:
        model: with `backbone.last_attention`, for heat maps.
        transform: evaluation transform of an element {"image": uint8 [H, W, 3]}.
        normalize: uint8 [B, h, w, 3] -> what the model takes.
        predict: (model, batch) -> int32 [B, Hp, Wp], the classes of pixels; the batch is like those of
          `data.segmentation.batches`.
        class_names, palette: name and colour (red, green, blue) of every class.
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
        """uint8 [H, W, 3] of any size -> uint8 [H, W]: the class of every pixel."""
        height, width = image.shape[:2]
        padded = [-(-length // LABEL_MULTIPLE) * LABEL_MULTIPLE for length in (height, width)]
        element = {"label": np.zeros(padded, np.uint8), "label_size": np.array([height, width], np.int32)}
        element |= self._transform({"image": image})
        batch = {name: value[None] for name, value in element.items()}
        return np.asarray(self._predict(self._state, batch))[0, :height, :width].astype(np.uint8)

    def attention(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] -> float32 [h, w]: channel mean of the last attention output, at 1/64 of the input."""
        return np.asarray(self._attention(self._state, self._transform({"image": image})["image"][None]))[0]

    def comparison(self, image: np.ndarray, labels: np.ndarray, path: pathlib.Path) -> None:
        """Writes two overlays side by side: the labels (uint8 [H, W]) and what the model sees."""
        overlays = [pictures.overlay(image, m, self.palette) for m in (labels, self.classes(image))]
        pictures.save(np.concatenate(overlays, 1), path)

    def write(self, paths: Sequence[pathlib.Path], folder: pathlib.Path, heatmap: bool) -> None:
        """Writes, for the images at `paths`:

        - `<name>_mask.png`: pixel values are classes, with the palette for colours;
        - `<name>_overlay.png`: the mask over the image;
        - `<name>_heatmap.png`, where wanted: the channel mean of the last attention output over the image;
        - `legend.png`: colours and names of the classes that occur, the largest first;
        - `predictions.jsonl`: the share of every class in every image.

        A name is that of the file without its extension, numbered where several have the same.
        """
        totals, rows = collections.Counter(), []
        for path, name in zip(paths, _distinct([path.stem for path in paths]), strict=True):
            image = images.decode(path, str(path))
            classes = self.classes(image)
            pictures.save_mask(classes, self.palette, folder / f"{name}_mask.png")
            pictures.save(pictures.overlay(image, classes, self.palette), folder / f"{name}_overlay.png")
            if heatmap:
                heat = pictures.heat_overlay(image, self.attention(image))
                pictures.save(heat, folder / f"{name}_heatmap.png")
            shares = self._shares(classes)
            totals.update(shares)
            rows.append({"image": str(path), "mask": f"{name}_mask.png", "classes": shares})
        (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        colours = dict(zip(self.class_names, self.palette, strict=True))
        pictures.save_legend(
            [(name, colours[name]) for name, _ in totals.most_common()], folder / "legend.png"
        )

    def _shares(self, classes: np.ndarray) -> dict[str, float]:
        """Returns the share of pixels of each class that occurs, the largest first."""
        counts = np.bincount(classes.ravel(), minlength=len(self.class_names))
        order = [k for k in np.argsort(-counts, kind="stable") if counts[k]]
        return {self.class_names[k]: round(float(counts[k] / classes.size), 6) for k in order}


def _distinct(names: Sequence[str]) -> list[str]:
    """Returns the names, followed by -2, -3, ... where one was there before."""
    taken, result = set(), []
    for name in names:
        number, candidate = 1, name
        while candidate in taken:
            number += 1
            candidate = f"{name}-{number}"
        taken.add(candidate)
        result.append(candidate)
    return result
