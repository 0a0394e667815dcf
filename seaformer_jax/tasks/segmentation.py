"""Semantic segmentation: the official recipes' loss, mIoU and class maps."""

import functools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from flax import nnx

from seaformer_jax.data.buckets import Size, sizes
from seaformer_jax.data.labels import distinct_colours
from seaformer_jax.data.on_device.normalize import zero_padding
from seaformer_jax.data.segmentation import batches, buckets, masks, sources
from seaformer_jax.data.segmentation.transforms import (
    SegmentationEvalTransform,
    SegmentationTrainTransform,
    image_name,
    size_name,
)
from seaformer_jax.data.sources import SkipCorrupt
from seaformer_jax.errors import UserError
from seaformer_jax.evaluation import inference, report, visualizer
from seaformer_jax.losses import PixelSums, pixel_cross_entropy
from seaformer_jax.metrics import ConfusionMatrix, Mean, mean_of_present
from seaformer_jax.models.registry import model_config
from seaformer_jax.tasks.image_task import ImageTask
from seaformer_jax.types import Batch


class Segmentation(ImageTask):
    """Semantic segmentation; the methods are described in `tasks.base.Task`."""

    best_metric = "mIoU"
    task_type = "segmentation"

    def open_source(self, split: str) -> sources.Source:
        source = sources.create(self.config.data, split)
        sources.check_labelled(source, split)
        return source

    def train_transform(self) -> SegmentationTrainTransform:
        return SegmentationTrainTransform(self.config.data, self.config.augment)

    @property
    def palette(self) -> Sequence[tuple[int, int, int]]:
        """Colour (red, green, blue) of every class.

        Those of `data.palette`, else those of the data set, else distinct ones: weights are of use without the data.
        """
        if self.config.data.palette:
            return self.config.data.palette
        try:
            return self.train_source.labels.palette
        except UserError:
            return distinct_colours(self.num_classes)

    def example_batches(self, batch_size: int) -> Sequence[Batch]:
        shape = (batch_size, *self.config.data.crop_size)
        return [
            {
                "image": jax.ShapeDtypeStruct((*shape, 3), jnp.uint8),
                "label": jax.ShapeDtypeStruct(shape, jnp.uint8),
                "size": jax.ShapeDtypeStruct((batch_size, 2), jnp.int32),
            }
        ]

    def heights(self) -> Sequence[int]:
        return [self.config.data.crop_size[0]]

    def eval_batches(self) -> Iterator[Batch]:
        config = self.config
        return batches.eval_batches(
            SkipCorrupt(self.val_source, config.data.on_corrupt, replace=False),
            SegmentationEvalTransform(config.eval),
            batch_size=self.eval_batch_size(),
            merge=self._takes_sizes,
            **self.reading(),
        )

    def loss(self, model: nnx.Module, batch: Batch, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns the cross-entropy per pixel, and the share of labelled pixels that are right as `accuracy`."""
        logits = model(self.training_images(batch), train=True, rngs=nnx.Rngs(dropout=key))
        sums = pixel_cross_entropy(logits, batch["label"])
        return sums.loss / self.divisor(sums, batch), {"accuracy": sums.accuracy()}

    def training_images(self, batch: Batch) -> jax.Array:
        """Returns the normalised images [B, H, W, 3] of a training batch; their padding is 0."""
        return zero_padding(self.normalize(batch["image"]), batch["size"])

    def divisor(self, sums: PixelSums, batch: Batch) -> jax.Array | int:
        """Returns the number that sums over the labelled pixels are divided by (`task.loss_divisor`).

        "all": the number of all pixels, as in mmseg. "valid": the number of labelled pixels, at least 1.
        """
        return batch["label"].size if self.config.task.loss_divisor == "all" else jnp.maximum(sums.pixels, 1)

    def predict_classes(self, model: nnx.Module, batch: Batch) -> jax.Array:
        """Returns the class of every pixel of the labels, int32 [B, Hp, Wp].

        Args:
            model: Model of this task.
            batch: Entries `image`, `size`, `image_1`, `size_1`, ..., `label` (only its shape is used) and
                `label_size`.
        """
        scales = range(len(self.config.eval.scales))
        return inference.predict(
            functools.partial(self._logits, model),
            [self.normalize(batch[image_name(k)]) for k in scales],
            [batch[size_name(k)] for k in scales],
            batch["label_size"],
            batch["label"].shape[1:],
            self.config.eval,
        )

    def _logits(self, model: nnx.Module, images: jax.Array, sizes: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the logits of padded images [B, h, w, 3] of sizes [B, 2], and the sizes of their valid parts."""
        images, sizes = self.model_input(images, sizes)
        given = sizes if self._takes_sizes else None
        return model(images, sizes=given), model.extent(images, sizes).sizes

    def model_input(self, images: jax.Array, sizes: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns what the model reads in evaluation instead of padded images [B, h, w, 3] of sizes [B, 2]."""
        return images, sizes

    def attention(self, model: nnx.Module, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Returns the channel mean of the last attention output, [B, h, w], and its size for each image, [B, 2]."""
        images, sizes = self.model_input(self.normalize(batch["image"]), batch["size"])
        heat = model.backbone.last_attention(images, sizes if self._takes_sizes else None).mean(-1)
        return heat, -(-sizes // model.backbone.stride)

    @functools.cached_property
    def _takes_sizes(self) -> bool:
        """Whether the model takes padded images; if not, images share a program only if they have the same shape."""
        return model_config(self.config.model.name, self.task_type, **self.model_options()).takes_sizes

    def eval_metrics(self, model: nnx.Module, batch: Batch) -> dict[str, Any]:
        classes, labels = self.predict_classes(model, batch), batch["label"]
        # Ignored pixels and padding have the label 255, which is no class.
        labelled = (labels < self.num_classes) & batch["mask"][:, None, None]
        return {
            "confusion": ConfusionMatrix.of(labels, classes, labelled, self.num_classes),
            "images": Mean.of(jnp.ones(len(labels)), batch["mask"]),
        }

    def summarize(self, metrics: dict[str, Any]) -> dict[str, float]:
        """Returns mIoU, mAcc (means over the classes that occur) and aAcc (all pixels) in percent, and `images`."""
        confusion = metrics["confusion"]
        return {
            "mIoU": 100 * mean_of_present(confusion.iou()),
            "mAcc": 100 * mean_of_present(confusion.recall()),
            "aAcc": 100 * confusion.accuracy(),
            "images": int(metrics["images"].count),
        }

    def write_report(self, metrics: dict[str, Any], folder: epath.Path) -> None:
        report.write_segmentation(metrics["confusion"], self.val_source.labels.class_names, folder)

    def show(self, model: nnx.Module, folder: epath.Path) -> None:
        source = SkipCorrupt(self.val_source, self.config.data.on_corrupt, replace=False)
        draw = self._visualizer(model, sizes(source))
        for index in range(len(source)):
            element = source[index]
            # A skipped image leaves a gap, so that the number of a picture is always the index of its image.
            if not element["skipped"]:
                draw.comparison(element["image"], element["label"], folder / f"{index:05}.png")

    def predict(
        self, model: nnx.Module, paths: Sequence[epath.Path], folder: epath.Path, heatmap: bool
    ) -> int:
        with ThreadPoolExecutor(16) as pool:
            draw = self._visualizer(model, list(pool.map(_size, paths)))
        return draw.write(paths, folder, heatmap)

    def _visualizer(self, model: nnx.Module, all_sizes: Sequence[Size | None]) -> visualizer.Visualizer:
        transform = SegmentationEvalTransform(self.config.eval)
        shapes = buckets.Buckets(all_sizes, transform, merge=self._takes_sizes)
        return visualizer.Visualizer(
            model, shapes, self.predict_classes, self.attention, self.class_names, self.palette
        )


def _size(path: epath.Path) -> Size | None:
    """Returns the (height, width) of an image; None if it cannot be read."""
    try:
        return masks.image_size(path, str(path))
    except UserError:
        return None
