"""Code shared by the tasks on labelled images."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from seaformer_jax.data import pipeline
from seaformer_jax.data.class_names import check_same
from seaformer_jax.data.on_device.normalize import normalize
from seaformer_jax.data.sources import SkipCorrupt, check_num_classes
from seaformer_jax.mesh import padded_batch_size
from seaformer_jax.models.registry import create_model
from seaformer_jax.types import Batch


class ImageTask:
    """The part of `tasks.base.Task` that does not depend on the kind of labels.

    Data sets are opened when they are first needed. Subclasses implement `open_source` and `train_transform`.

    Args:
        config: The whole config.
        class_names: Names of the classes, if they are known. If empty, they are those of the training data.
    """

    task_type: str
    least_classes = 2

    def __init__(self, config: ConfigDict, class_names: Sequence[str] = ()):
        self.config = config
        self._class_names = class_names

    def open_source(self, split: str) -> Any:
        """Returns the data set of `split`, "train" or "val"."""
        raise NotImplementedError

    def train_transform(self) -> grain.transforms.RandomMap:
        """Returns the random transform of one training element."""
        raise NotImplementedError

    @functools.cached_property
    def train_source(self) -> Any:
        """The training data."""
        return self.open_source("train")

    @functools.cached_property
    def val_source(self) -> Any:
        """The validation data; raises UserError if its classes are not those of this task."""
        source = self.open_source("val")
        # Label k must mean the same class in validation as in training.
        owner = "the weights" if self._class_names else "the training data"
        check_same(source.labels.class_names, self.class_names, owner)
        check_num_classes(source, self.num_classes, self.least_classes)
        return source

    @property
    def class_names(self) -> Sequence[str]:
        return self._class_names or self.train_source.labels.class_names

    @functools.cached_property
    def num_classes(self) -> int:
        """`task.num_classes`; if that is 0, the number of known class names."""
        return self.config.task.num_classes or len(self.class_names)

    def create_model(self) -> nnx.Module:
        return create_model(
            self.config.model.name,
            self.task_type,
            num_classes=self.num_classes,
            seed=self.config.seed,
            dtype=self.config.dtype,
            **self.model_options(),
        )

    def model_options(self) -> dict[str, Any]:
        """Returns the options of the model: the keys of `config.model` other than its name."""
        return {key: value for key, value in self.config.model.items() if key != "name"}

    def train_batches(self, start_step: int) -> Iterator[Batch]:
        config = self.config
        # `task.num_classes` may be set by hand and then differ from the data.
        check_num_classes(self.train_source, self.num_classes, self.least_classes)
        return pipeline.train_batches(
            SkipCorrupt(self.train_source, config.data.on_corrupt),
            self.train_transform(),
            batch_size=config.batch_size,
            seed=config.seed,
            start_step=start_step,
            groups=self.groups(),
            **self.reading(),
        )

    def groups(self) -> np.ndarray | None:
        """Returns the group of every training image, int [N], if the images of a batch have to be of one group."""
        return None

    def constants(self) -> Batch:
        return {}

    def reading(self) -> dict[str, int]:
        """Returns the arguments of `train_batches` and `eval_batches` that say which process and workers read."""
        return {
            "workers": self.config.data.workers,
            "process_index": jax.process_index(),
            "process_count": jax.process_count(),
        }

    def eval_batch_size(self) -> int:
        """Returns the number of images of an evaluation batch.

        It is `eval.batch_size`, rounded up so that all devices get equally many. Results do not depend on it, because
        padding is masked.
        """
        return padded_batch_size(self.config.eval.batch_size)

    def normalize(self, images: jax.Array) -> jax.Array:
        """Returns images [B, H, W, 3] in 0..255 normalised by `data.mean` and `data.std`, in `config.dtype`."""
        data = self.config.data
        return normalize(images, data.mean, data.std, jnp.dtype(self.config.dtype))

    def prepare(self, images: jax.Array) -> jax.Array:
        """Turns images of the evaluation transform, uint8 [B, H, W, 3], into the model's input in evaluation."""
        return self.normalize(images)
