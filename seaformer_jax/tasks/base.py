"""What the training loop and the commands ask of a task; they know nothing else of it."""

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import jax
from flax import nnx

from seaformer_jax.types import Batch


class Task(Protocol):
    """Model, data, loss and evaluation of one kind of problem."""

    best_metric: str  # Of `summarize`; larger is better.
    class_names: Sequence[str]
    task_type: str  # What the model answers: a task that `create_model` knows.

    def create_model(self) -> nnx.Module:
        """A model with fresh parameters."""

    def example_batch(self, batch_size: int) -> Batch:
        """Shapes and dtypes of a global training batch, to compile with."""

    def train_batches(self, start_step: int) -> Iterator[Batch]:
        """This process's rows of the training batches from number `start_step` on."""

    def constants(self) -> Batch:
        """Arrays that every training batch has besides, the same in each and in no checkpoint: a frozen model."""

    def eval_batches(self) -> Iterator[Batch]:
        """This process's rows of the validation batches, with `mask`."""

    def loss(self, model: nnx.Module, batch: Batch, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Scalar loss of a training batch and scalar metrics; runs inside `jax.jit`."""

    def eval_metrics(self, model: nnx.Module, batch: Batch) -> dict[str, Any]:
        """Mergeable metrics (`metrics.py`) of a validation batch; runs inside `jax.jit`."""

    def summarize(self, metrics: dict[str, Any]) -> dict[str, float]:
        """Numbers for the log, from merged metrics."""

    def write_report(self, metrics: dict[str, Any], folder: pathlib.Path) -> None:
        """Writes tables and pictures of merged metrics into `folder`."""

    def show(self, model: nnx.Module, folder: pathlib.Path) -> None:
        """Writes a picture of every validation image with what `model` sees in it into `folder`."""

    def predict(
        self, model: nnx.Module, paths: Sequence[pathlib.Path], folder: pathlib.Path, heatmap: bool
    ) -> None:
        """Writes what `model` sees in the images at `paths` into `folder`; with `heatmap`, where it looks, too."""
