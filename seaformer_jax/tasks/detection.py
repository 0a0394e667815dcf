"""Object detection: the losses of RetinaNet, COCO's average precision, pictures of boxes."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx

from seaformer_jax.data.detection import batches, sources
from seaformer_jax.data.detection.transforms import DetectionEvalTransform, DetectionTrainTransform
from seaformer_jax.data.on_device.normalize import zero_padding
from seaformer_jax.data.sources import SkipCorrupt
from seaformer_jax.detection import anchors, losses, postprocess
from seaformer_jax.errors import UserError
from seaformer_jax.evaluation import coco, detector
from seaformer_jax.metrics import PerImage
from seaformer_jax.tasks.image_task import ImageTask
from seaformer_jax.types import Batch


class Detection(ImageTask):
    """Object detection; the methods are described in `tasks.base.Task`."""

    best_metric = "AP"
    task_type = "detection"
    least_classes = 1

    def open_source(self, split: str) -> sources.Source:
        source = sources.create(self.config.data, split)
        if split == "val" and not len(source.truth.image):
            raise UserError(
                "data.val_split has no boxes, so there is nothing to compare with; correct data.annotations or "
                "data.val_split"
            )
        return source

    def train_transform(self) -> DetectionTrainTransform:
        return DetectionTrainTransform(self.config.data, self.config.augment)

    def groups(self) -> np.ndarray:
        """Returns the bucket of every training image: the images of a batch are padded to one size."""
        data = self.config.data
        return batches.buckets(self.train_source, data.scale, data.buckets)

    def example_batches(self, batch_size: int) -> Sequence[Batch]:
        data = self.config.data
        return [
            {
                "image": jax.ShapeDtypeStruct((batch_size, *bucket, 3), jnp.uint8),
                "size": jax.ShapeDtypeStruct((batch_size, 2), jnp.int32),
                "boxes": jax.ShapeDtypeStruct((batch_size, data.max_boxes, 4), jnp.float32),
                "labels": jax.ShapeDtypeStruct((batch_size, data.max_boxes), jnp.int32),
            }
            for bucket in data.buckets
        ]

    def heights(self) -> Sequence[int]:
        return [height for height, _ in self.config.data.buckets]

    def eval_batches(self) -> Iterator[Batch]:
        config = self.config
        return batches.eval_batches(
            SkipCorrupt(self.val_source, config.data.on_corrupt, replace=False),
            DetectionEvalTransform(config.eval),
            batch_size=self.eval_batch_size(),
            **self.reading(),
        )

    def loss(self, model: nnx.Module, batch: Batch, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns the sum of `class_loss` and `box_loss`, which are also metrics.

        Both are divided by the number of positive anchors of the whole batch. `positives` is the mean per image.
        """
        images = zero_padding(self.normalize(batch["image"]), batch["size"])
        # Drop path stays on with the running statistics, as in mmdetection.
        logits, deltas = model(images, train=self.config.task.batch_statistics, rngs=nnx.Rngs(dropout=key))
        height, width = images.shape[1:3]
        wanted = losses.targets(
            anchors.anchors(height, width, model.anchor_scale),
            losses.anchors_inside(batch["size"], height, width),
            batch["boxes"],
            batch["labels"],
            valid=batch["labels"] >= 0,
        )
        divisor = wanted.divisor()
        class_loss = losses.focal_loss(logits, wanted.classes, wanted.weights) / divisor
        box_loss = losses.box_loss(deltas, wanted) / divisor
        positives = wanted.positive.sum(1).mean()
        return class_loss + box_loss, {"class_loss": class_loss, "box_loss": box_loss, "positives": positives}

    def detect(self, model: nnx.Module, batch: Batch) -> postprocess.Detections:
        """Returns the boxes of every image of a validation batch, in pixels of the original images."""
        images, sizes = zero_padding(self.normalize(batch["image"]), batch["size"]), batch["size"]
        # Results do not depend on the padding, except with another attention than SEA: there, as in mmdetection, the
        # padding is part of the image.
        aware = model.backbone.takes_sizes
        logits, deltas = model(images, train=False, sizes=sizes if aware else None)
        shape = images.shape[1:3]
        if aware:
            inside = (anchors.corners(*shape) < sizes[:, None]).all(-1)
            logits = jnp.where(inside[..., None], logits, -jnp.inf)
        names = postprocess.Settings._fields
        return postprocess.detect(
            logits,
            deltas,
            shape,
            batch["size"],
            batch["scale"],
            model.anchor_scale,
            postprocess.Settings(**{name: self.config.eval[name] for name in names}),
        )

    def eval_metrics(self, model: nnx.Module, batch: Batch) -> dict[str, Any]:
        found = self.detect(model, batch)._asdict()
        return {"detections": PerImage({"index": batch["index"], **found}, batch["mask"])}

    @functools.cached_property
    def _judge(self) -> coco.Judge:
        return coco.Judge(self.val_source.truth, self.class_names)

    def summarize(self, metrics: dict[str, Any]) -> dict[str, float]:
        """Returns COCO's twelve numbers in percent, and `images`.

        A number that is not defined, such as the AP of small objects where there are none, is left out.
        """
        found = metrics["detections"].of_images()
        scores = self._judge(found).scores
        return {name: 100 * value for name, value in scores.items() if value >= 0} | {
            "images": len(found["index"])
        }

    def write_report(self, metrics: dict[str, Any], folder: epath.Path) -> None:
        self._judge(metrics["detections"].of_images()).write(folder)

    def show(self, model: nnx.Module, folder: epath.Path) -> None:
        draw = self._painter(model)
        source = SkipCorrupt(self.val_source, self.config.data.on_corrupt, replace=False)
        for index in range(len(source)):
            element = source[index]
            # A skipped image leaves a gap, so that the number of a picture is always the index of its image.
            if not element["skipped"]:
                draw.comparison(element, folder / f"{index:05}.png")

    def predict(
        self, model: nnx.Module, paths: Sequence[epath.Path], folder: epath.Path, heatmap: bool
    ) -> int:
        if heatmap:
            raise UserError("--heatmap is drawn over class maps, and this task has none; leave it out")
        return self._painter(model).write(paths, folder)

    def _painter(self, model: nnx.Module) -> detector.Painter:
        transform = DetectionEvalTransform(self.config.eval)
        return detector.Painter(
            model, transform.map, self.detect, self.class_names, self.config.eval.draw_threshold
        )
