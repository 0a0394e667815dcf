"""The interface between a task and the training loop and commands."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import jax
from etils import epath
from flax import nnx

from seaformer_jax.types import Batch


class Task(Protocol):
    """Model, data, loss and evaluation of one kind of problem.

    Attributes:
        best_metric: Key of the result of `summarize` that decides which checkpoint is the best; larger is better.
        class_names: Names of the classes, in the order of the logits.
        task_type: Kind of model, as the `task` argument of `create_model`.
    """

    best_metric: str
    class_names: Sequence[str]
    task_type: str

    def create_model(self) -> nnx.Module:
        """Returns a model with fresh parameters."""

    def example_batches(self, batch_size: int) -> Sequence[Batch]:
        """Returns the shapes and dtypes of a global training batch, to compile with: all that a run may have."""

    def heights(self) -> Sequence[int]:
        """Returns the heights in pixels that the model's training images may have."""

    def train_batches(self, start_step: int) -> Iterator[Batch]:
        """Returns this process's rows of the training batches, from batch number `start_step` on.

        The iterator has a `close` method. The entry `skipped` [B] of a batch says how many broken images were
        skipped to get each image.
        """

    def constants(self) -> Batch:
        """Returns arrays that are added to every training batch and never change, such as a frozen model's weights.

        They are not saved in checkpoints.
        """

    def eval_batches(self) -> Iterator[Batch]:
        """Returns this process's rows of the validation batches, with the entries `mask` and `skipped`.

        The iterator has a `close` method.
        """

    def loss(self, model: nnx.Module, batch: Batch, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns the scalar loss of a training batch and scalar metrics; runs inside `jax.jit`."""

    def eval_metrics(self, model: nnx.Module, batch: Batch) -> dict[str, Any]:
        """Returns the mergeable metrics (`metrics.py`) of a validation batch; runs inside `jax.jit`."""

    def summarize(self, metrics: dict[str, Any]) -> dict[str, float]:
        """Returns the numbers for the log, from merged metrics."""

    def write_report(self, metrics: dict[str, Any], folder: epath.Path) -> None:
        """Writes tables and pictures of merged metrics into `folder`."""

    def show(self, model: nnx.Module, folder: epath.Path) -> None:
        """Writes a picture of every validation image with the model's predictions into `folder`."""

    def predict(
        self, model: nnx.Module, paths: Sequence[epath.Path], folder: epath.Path, heatmap: bool
    ) -> int:
        """Writes the model's predictions for the images at `paths` into `folder`.

        With `heatmap`, it also writes heat maps of the last attention output. Images that cannot be read are logged
        and left out. Returns the number of the others; none at all is a UserError.
        """
