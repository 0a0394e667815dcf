"""What the tasks on labelled images have in common."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from seaformer_jax.data import pipeline
from seaformer_jax.data.class_names import check_same
from seaformer_jax.data.on_device.normalize import normalize
from seaformer_jax.data.sources import SkipCorrupt, check_num_classes
from seaformer_jax.models.registry import create_model
from seaformer_jax.types import Batch


class ImageTask:
    """The half of `tasks.base.Task` that does not depend on what the labels are.

    Data sets are opened when they are first needed. A subclass has `open_source(split)` and `train_transform()`.
    """

    task_type: str

    def __init__(self, config: ConfigDict, class_names: Sequence[str] = ()):
        self.config = config
        self._class_names = class_names

    def open_source(self, split: str) -> Any:
        """The data set of `split`, "train" or "val"."""
        raise NotImplementedError

    def train_transform(self) -> grain.transforms.RandomMap:
        raise NotImplementedError

    @functools.cached_property
    def train_source(self) -> Any:
        return self.open_source("train")

    @functools.cached_property
    def val_source(self) -> Any:
        source = self.open_source("val")
        owner = "the weights" if self._class_names else "the training data"
        check_same(source.labels.class_names, self.class_names, owner)
        check_num_classes(source, self.num_classes)
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
            self.task_type,
            num_classes=self.num_classes,
            seed=self.config.seed,
            dtype=self.config.dtype,
            **options,
        )

    def train_batches(self, start_step: int) -> Iterator[Batch]:
        config = self.config
        check_num_classes(self.train_source, self.num_classes)
        return pipeline.train_batches(
            SkipCorrupt(self.train_source, config.data.on_corrupt),
            self.train_transform(),
            batch_size=config.batch_size,
            seed=config.seed,
            start_step=start_step,
            **self.reading(),
        )

    def constants(self) -> Batch:
        return {}

    def reading(self) -> dict[str, int]:
        """Who reads the data: arguments of the functions that make batches."""
        return {
            "workers": self.config.data.workers,
            "process_index": jax.process_index(),
            "process_count": jax.process_count(),
        }

    def normalize(self, images: jax.Array) -> jax.Array:
        """[B, H, W, 3] in 0..255 -> normalised, in the dtype of the computation."""
        data = self.config.data
        return normalize(images, data.mean, data.std, jnp.dtype(self.config.dtype))

    def prepare(self, images: jax.Array) -> jax.Array:
        """uint8 [B, H, W, 3], as the evaluation transform gives them -> what the model takes in evaluation."""
        return self.normalize(images)
