"""Image classification: the ImageNet recipe's loss, top-1 and top-5, predictions."""

import functools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from seaformer_jax.data import pipeline, sources
from seaformer_jax.data.transforms import EvalTransform, TrainTransform
from seaformer_jax.evaluation import prediction, report
from seaformer_jax.losses import cross_entropy, soft_cross_entropy
from seaformer_jax.metrics import ConfusionMatrix, Mean
from seaformer_jax.models.registry import create_model
from seaformer_jax.tasks import device_augment
from seaformer_jax.tasks.base import Batch


class Classification:
    """See `tasks.base.Task`. Data sets are opened when they are first needed."""

    best_metric = "top1"

    def __init__(self, config: ConfigDict, class_names: Sequence[str] = ()):
        self.config = config
        self._class_names = class_names

    @functools.cached_property
    def train_source(self) -> sources.Source:
        return sources.create(self.config.data, "train")

    @functools.cached_property
    def val_source(self) -> sources.Source:
        source = sources.create(self.config.data, "val")
        sources.check_num_classes(source, self.num_classes)
        return source

    @property
    def class_names(self) -> Sequence[str]:
        return self._class_names or self.train_source.labels.class_names

    @functools.cached_property
    def num_classes(self) -> int:
        """`task.num_classes`, or as many as the training data has where that is 0."""
        return self.config.task.num_classes or len(self.class_names)

    def create_model(self) -> nnx.Module:
        options = {key: value for key, value in self.config.model.items() if key != "name"}
        return create_model(
            self.config.model.name,
            num_classes=self.num_classes,
            seed=self.config.seed,
            dtype=self.config.dtype,
            **options,
        )

    def example_batch(self, batch_size: int) -> Batch:
        size = self.config.data.image_size
        return {
            "image": jax.ShapeDtypeStruct((batch_size, size, size, 3), jnp.uint8),
            "label": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
        }

    def train_batches(self, start_step: int) -> Iterator[Batch]:
        config = self.config
        sources.check_num_classes(self.train_source, self.num_classes)
        return pipeline.train_batches(
            sources.ReadGuard(self.train_source, config.data.on_corrupt),
            TrainTransform(config.data.image_size, config.augment, config.data.mean),
            batch_size=config.batch_size,
            seed=config.seed,
            start_step=start_step,
            workers=config.data.workers,
            **_processes(),
        )

    def eval_batches(self) -> Iterator[Batch]:
        config = self.config
        return pipeline.eval_batches(
            sources.ReadGuard(self.val_source, config.data.on_corrupt, replace=False),
            self._eval_transform(),
            batch_size=config.eval.batch_size,
            workers=config.data.workers,
            **_processes(),
        )

    def _eval_transform(self) -> EvalTransform:
        config = self.config
        return EvalTransform(config.data.image_size, config.eval.crop_fraction, config.eval.interpolation)

    def loss(self, model: nnx.Module, batch: Batch, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Mean cross-entropy against smoothed, possibly mixed targets; accuracy against the batch's labels."""
        augment = self.config.augment
        mix_key, erase_key, dropout_key = jax.random.split(key, 3)
        smoothing = self.config.task.label_smoothing
        targets = device_augment.smooth_one_hot(batch["label"], self.num_classes, smoothing)
        images, targets = device_augment.mix(
            batch["image"],
            targets,
            mix_key,
            mixup=augment.mixup,
            cutmix=augment.cutmix,
            group=augment.mix_group,
        )
        images = device_augment.random_erasing(self._normalize(images), erase_key, augment.erasing)
        logits = model(images, train=True, rngs=nnx.Rngs(dropout=dropout_key))
        accuracy = (logits.argmax(-1) == batch["label"]).mean()
        return soft_cross_entropy(logits, targets).mean(), {"accuracy": accuracy}

    def _normalize(self, images: jax.Array) -> jax.Array:
        data = self.config.data
        return device_augment.normalize(images, data.mean, data.std, jnp.dtype(self.config.dtype))

    def count(self, model: nnx.Module, batch: Batch) -> dict[str, Any]:
        logits = model(self._normalize(batch["image"]), train=False)
        labels, mask = batch["label"], batch["mask"]
        own = jnp.take_along_axis(logits, labels[:, None], axis=1)
        predictions = logits.argmax(-1)
        return {
            "loss": Mean.of(cross_entropy(logits, labels), mask),
            "top1": Mean.of(predictions == labels, mask),
            "top5": Mean.of((~(logits <= own)).sum(-1) < 5, mask),  # NaN is never right.
            "confusion": ConfusionMatrix.of(labels, predictions, mask, self.num_classes),
        }

    def summarize(self, counts: dict[str, Any]) -> dict[str, float]:
        """loss in nats, top1 and top5 in percent, images counted."""
        return {
            "loss": counts["loss"].compute(),
            "top1": 100 * counts["top1"].compute(),
            "top5": 100 * counts["top5"].compute(),
            "images": int(counts["top1"].count),
        }

    def write_report(self, counts: dict[str, Any], folder: pathlib.Path) -> None:
        report.write_classification(counts["confusion"], self.val_source.labels.class_names, folder)

    def predict(self, model: nnx.Module, paths: Sequence[pathlib.Path], folder: pathlib.Path) -> None:
        prediction.classify(
            model, paths, folder, self._eval_transform().map, self._normalize, self.class_names
        )


def _processes() -> dict[str, int]:
    return {"process_index": jax.process_index(), "process_count": jax.process_count()}
