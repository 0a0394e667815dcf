"""Image classification: the ImageNet recipe's loss, top-1 and top-5 accuracy, predictions."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from flax import nnx

from seaformer_jax.data import pipeline
from seaformer_jax.data.classification import sources
from seaformer_jax.data.classification.records import Lying
from seaformer_jax.data.classification.transforms import (
    EvalTransform,
    TrainTransform,
    WindowTransform,
    policy,
)
from seaformer_jax.data.images import decode_either
from seaformer_jax.data.on_device.crop import resize_crops
from seaformer_jax.data.on_device.erase import random_erasing
from seaformer_jax.data.on_device.mix import mix
from seaformer_jax.data.on_device.normalize import smooth_one_hot
from seaformer_jax.data.on_device.randaugment import draw_cubic, flip, rand_augment
from seaformer_jax.data.sources import SkipCorrupt, Source
from seaformer_jax.errors import UserError
from seaformer_jax.evaluation import prediction, report
from seaformer_jax.losses import cross_entropy, soft_cross_entropy
from seaformer_jax.metrics import ConfusionMatrix, Mean
from seaformer_jax.tasks.image_task import ImageTask
from seaformer_jax.types import Batch


class Classification(ImageTask):
    """Image classification; the methods are described in `tasks.base.Task`."""

    best_metric = "top1"
    task_type = "classification"

    def open_source(self, split: str) -> Source:
        source = sources.create(self.config.data, split, decode_either)
        return Lying(source) if split == "train" and self._crops_on_device() else source

    def _crops_on_device(self) -> bool:
        """Returns whether training images are resized in the step: their size has to have a bound."""
        return self.config.augment.on_device and self.config.data.source == "records"

    def train_transform(self) -> TrainTransform | WindowTransform:
        config = self.config
        if self._crops_on_device():
            return WindowTransform(self.train_source.short_side, config.augment)
        return TrainTransform(config.data.image_size, config.augment, config.data.mean)

    def example_batches(self, batch_size: int) -> Sequence[Batch]:
        shape, shapes = (self.config.data.image_size,) * 2, {}
        if self._crops_on_device():
            shape = self.train_transform().window
            shapes = {"size": ((2,), jnp.int32), "upright": ((), jnp.bool)}
        shapes |= {"image": ((*shape, 3), jnp.uint8), "label": ((), jnp.int32)}
        return [
            {
                name: jax.ShapeDtypeStruct((batch_size, *shape), dtype)
                for name, (shape, dtype) in shapes.items()
            }
        ]

    def heights(self) -> Sequence[int]:
        return [self.config.data.image_size]

    def eval_batches(self) -> Iterator[Batch]:
        config = self.config
        return pipeline.eval_batches(
            SkipCorrupt(self.val_source, config.data.on_corrupt, replace=False),
            self._eval_transform(),
            batch_size=self.eval_batch_size(),
            **self.reading(),
        )

    def _eval_transform(self) -> EvalTransform:
        config = self.config
        return EvalTransform(config.data.image_size, config.eval.crop_fraction, config.eval.interpolation)

    def loss(self, model: nnx.Module, batch: Batch, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns the mean cross-entropy and the accuracy.

        The loss uses the smoothed and possibly mixed targets; the accuracy uses the labels of the batch.
        """
        images, targets, dropout_key = self.training_images(batch, key)
        logits = model(images, train=True, rngs=nnx.Rngs(dropout=dropout_key))
        accuracy = (logits.argmax(-1) == batch["label"]).mean()
        return soft_cross_entropy(logits, targets).mean(), {"accuracy": accuracy}

    def training_images(self, batch: Batch, key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Prepares a training batch on the device.

        Returns:
            The normalised and augmented images [B, S, S, 3], the smoothed and mixed targets [B, num_classes], and an
            unused random key for dropout.
        """
        augment = self.config.augment
        mix_key, erase_key, dropout_key = jax.random.split(key, 3)
        smoothing = self.config.task.label_smoothing
        # 1. Targets as probabilities, so that mixing can blend them.
        targets = smooth_one_hot(batch["label"], self.num_classes, smoothing)
        # 2. Flips and RandAugment, unless the host has done them.
        images = self._augmented(batch, key) if augment.on_device else batch["image"]
        # 3. Mixup and CutMix on the pixel values 0..255, as timm's `FastCollateMixup`.
        images, targets = mix(
            images,
            targets,
            mix_key,
            mixup=augment.mixup,
            cutmix=augment.cutmix,
            group=augment.mix_group,
        )
        # 4. Erasing on normalised images, as timm: the erased pixels become noise from N(0, 1).
        images = random_erasing(self.normalize(images), erase_key, augment.erasing)
        return images, targets, dropout_key

    def _augmented(self, batch: Batch, key: jax.Array) -> jax.Array:
        """Returns the images after resizing, flips and RandAugment, each with its own draws: uint8 [B, S, S, 3]."""
        config = self.config
        flip_key, filter_key, policy_key = jax.random.split(jax.random.fold_in(key, 0), 3)
        mirrored = jax.random.bernoulli(flip_key, config.augment.flip, (len(batch["image"]),))
        if self._crops_on_device():
            cubic = draw_cubic(filter_key, config.augment.interpolation, mirrored.shape)
            crops = (batch["image"], batch["size"], batch["upright"])
            images = resize_crops(*crops, mirrored, cubic, config.data.image_size)
        else:
            images = flip(batch["image"], mirrored)
        drawn = policy(config.augment, config.data.mean)
        return rand_augment(images, policy_key, drawn) if drawn else images

    def eval_metrics(self, model: nnx.Module, batch: Batch) -> dict[str, Any]:
        logits = model(self.prepare(batch["image"]), train=False)
        labels, mask = batch["label"], batch["mask"]
        own = jnp.take_along_axis(logits, labels[:, None], axis=1)  # [B, 1], the logit of the true class.
        predictions = logits.argmax(-1)
        return {
            "loss": Mean.of(cross_entropy(logits, labels), mask),
            "top1": Mean.of(predictions == labels, mask),
            # Counts the logits above the true one. Every comparison with NaN is false, so NaN is never right.
            "top5": Mean.of((~(logits <= own)).sum(-1) < 5, mask),
            "confusion": ConfusionMatrix.of(labels, predictions, mask, self.num_classes),
        }

    def summarize(self, metrics: dict[str, Any]) -> dict[str, float]:
        """Returns the loss in nats, top1 and top5 in percent, and the number of images counted."""
        return {
            "loss": metrics["loss"].compute(),
            "top1": 100 * metrics["top1"].compute(),
            "top5": 100 * metrics["top5"].compute(),
            "images": int(metrics["top1"].count),
        }

    def write_report(self, metrics: dict[str, Any], folder: epath.Path) -> None:
        report.write_classification(metrics["confusion"], self.val_source.labels.class_names, folder)

    def show(self, model: nnx.Module, folder: epath.Path) -> None:
        raise UserError("--show-dir draws class maps, and this task has none; use predict for its pictures")

    def predict(
        self, model: nnx.Module, paths: Sequence[epath.Path], folder: epath.Path, heatmap: bool
    ) -> int:
        if heatmap:
            raise UserError("--heatmap is drawn over class maps, and this task has none; leave it out")
        return prediction.classify(
            model, paths, folder, self._eval_transform().map, self.prepare, self.class_names
        )
