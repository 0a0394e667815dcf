"""Semantic segmentation: the official recipes' loss, mIoU and class maps."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from flax import nnx

from seaformer_jax.data.labels import distinct_colours
from seaformer_jax.data.on_device.normalize import zero_padding
from seaformer_jax.data.segmentation import batches, sources
from seaformer_jax.data.segmentation.transforms import (
    SegmentationEvalTransform,
    SegmentationTrainTransform,
    image_name,
)
from seaformer_jax.data.sources import SkipCorrupt
from seaformer_jax.errors import UserError
from seaformer_jax.evaluation import inference, report, visualizer
from seaformer_jax.losses import PixelSums, pixel_cross_entropy
from seaformer_jax.metrics import ConfusionMatrix, Mean, mean_of_present
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

    def eval_batches(self) -> Iterator[Batch]:
        config = self.config
        return batches.eval_batches(
            SkipCorrupt(self.val_source, config.data.on_corrupt, replace=False),
            SegmentationEvalTransform(config.eval),
            batch_size=self.eval_batch_size(),
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
            model: Model of this task, or a function that returns its logits.
            batch: Entries `image`, `image_1`, ..., `label` (only its shape is used) and `label_size`.
        """
        images = [self.normalize(batch[image_name(k)]) for k in range(len(self.config.eval.scales))]
        shape = batch["label"].shape[1:]
        return inference.predict(model, images, batch["label_size"], shape, self.config.eval)

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
        draw = self._visualizer(model)
        source = SkipCorrupt(self.val_source, self.config.data.on_corrupt, replace=False)
        for index in range(len(source)):
            element = source[index]
            # A skipped image leaves a gap, so that the number of a picture is always the index of its image.
            if not element["skipped"]:
                draw.comparison(element["image"], element["label"], folder / f"{index:05}.png")

    def predict(
        self, model: nnx.Module, paths: Sequence[epath.Path], folder: epath.Path, heatmap: bool
    ) -> int:
        return self._visualizer(model).write(paths, folder, heatmap)

    def _visualizer(self, model: nnx.Module) -> visualizer.Visualizer:
        transform = SegmentationEvalTransform(self.config.eval)
        return visualizer.Visualizer(
            model, transform.map, self.prepare, self.predict_classes, self.class_names, self.palette
        )
