"""Training batches on the devices, each sent there while the step before it runs."""

from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from seaformer_jax import mesh as meshes
from seaformer_jax.types import Batch


class Prefetched:
    """Training batches, of which one is always ahead of the step: it is on the devices when it is due.

    Without it, the devices would have nothing to do after each progress line, evaluation and checkpoint: the host
    waits for them there, and would read and send the next batch only afterwards. It costs the memory of one batch.
    Threads are not needed: the workers read ahead, and a transfer does not wait for its end.

    Args:
        batches: This process's rows of the batches, with `skipped`. The first one is read and sent at once.
        mesh: Mesh of the devices.
    Raises:
        UserError: The first batch could not be read.
    """

    def __init__(self, batches: Iterator[Batch], mesh: Mesh):
        self._batches, self._mesh = batches, mesh
        self._error: Exception | None = None
        self._ahead = self._send(next(batches))

    def _send(self, batch: Batch) -> tuple[dict[str, jax.Array], np.ndarray]:
        skipped = batch.pop("skipped")  # Only the host counts them.
        return meshes.put_batch(self._mesh, batch), skipped

    def fetch(self) -> None:
        """Reads the next batch and starts its transfer. An error waits until `take`, when this batch is due."""
        try:
            self._ahead = self._send(next(self._batches))
        except Exception as error:
            self._error = error

    def take(self) -> tuple[dict[str, jax.Array], np.ndarray]:
        """Returns the batch that is ahead, as global arrays [B, ...], and its rows' numbers of skipped images [rows].

        Raises:
            UserError: The batch could not be read.
        """
        if self._error:
            raise self._error
        taken, self._ahead = self._ahead, None  # From here on, only the step holds its memory.
        return taken
