"""Turns a random-access source into batches, through grain.

Batch number t depends on the seed and t alone. It does not depend on the number of workers or processes, or on
where a run was resumed. So the step count is the whole state of the input, and checkpoints store no input state.
"""

import contextlib
import gc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
import numpy as np

from seaformer_jax.data import workers as data_workers
from seaformer_jax.data.buckets import Shuffled
from seaformer_jax.errors import UserError
from seaformer_jax.types import Batch

_BUFFERED_BATCHES = 2  # Finished batches that wait: per worker process, or in addition to one per thread.


def stack_rows(rows: list[dict[str, Any]]) -> Batch:
    """Returns elements of equal keys and shapes as a batch."""
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


class ProcessBatches:
    """One process's rows of every global batch, as a random-access sequence of stacked elements.

    Process p of n holds the p-th of n consecutive runs of rows. So the global array equals, row for row, the batch
    that a single process would have made.

    Args:
        elements: Random access to dictionaries of arrays with equal keys and shapes.
        batch_size: Global batch size, divisible by `count`.
        index: Index of this process.
        count: Number of processes.
        stack: Makes a batch of elements.

    Raises:
        UserError: The batch size is not divisible by the number of processes.
    """

    def __init__(
        self,
        elements: Sequence[dict[str, Any]],
        batch_size: int,
        index: int,
        count: int,
        stack: Callable[[list[dict[str, Any]]], Batch] = stack_rows,
    ):
        if batch_size % count:
            raise UserError(
                f"batch of {batch_size} does not divide among {count} processes; set the batch size to a multiple "
                "of the number of processes"
            )
        self.elements, self.batch_size, self.stack = elements, batch_size, stack
        self.rows = batch_size // count
        self.offset = index * self.rows

    def __len__(self) -> int:
        return len(self.elements) // self.batch_size

    def __getitem__(self, step: int) -> Batch | UserError:
        """Returns batch `step`, or a user error: raising it here, in a worker, would add grain's traceback."""
        first = int(step) * self.batch_size + self.offset
        try:
            rows = [self.elements[i] for i in range(first, first + self.rows)]
        except UserError as error:
            return error
        return self.stack(rows)


class Masked:
    """Pads elements to a whole number of batches and adds `mask`: False on padding and on skipped images."""

    def __init__(self, elements: Sequence[dict[str, Any]], batch_size: int):
        self.elements = elements
        self.length = -(-len(elements) // batch_size) * batch_size

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        real = index < len(self.elements)
        # The last element serves as padding, because it has the right fields, types and shapes.
        element = self.elements[index if real else -1]
        # A skipped image is counted once, not again in each copy that pads the batch.
        skipped = element["skipped"] if real else 0
        return {**element, "skipped": skipped, "mask": np.bool_(real and not skipped)}


def train_batches(
    source: Sequence[dict[str, Any]],
    transform: grain.transforms.RandomMap,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    groups: np.ndarray | None = None,
    workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Returns endless shuffled batches.

    Every epoch has its own order. A batch may hold the last images of one epoch and the first of the next.

    Args:
        source: Random access to elements, as in `data.sources`.
        transform: Random transform of one element; it takes the generator of the element's position. If it has a
            method `stack`, this makes a batch of its elements.
        batch_size: Global batch size, divisible by `process_count`.
        seed: Seed of the order and of the random transforms.
        start_step: Number of the first batch.
        groups: Group of every element, int [N], if the images of a batch have to be of one group, as `Shuffled` does
            it. The default is one group, in which epochs end within batches.
        workers: Number of processes that decode and transform; 0 uses threads of this process.
        process_index: Index of this host process.
        process_count: Number of host processes.

    Returns:
        An iterator with a `close` method; batches are dictionaries of arrays [batch_size / process_count, ...].
    """
    if groups is None:
        elements = grain.MapDataset.source(source).seed(seed).shuffle().repeat()
    else:
        elements = grain.MapDataset.source(Shuffled(source, groups, batch_size, seed)).seed(seed)
    elements = elements.random_map(transform)
    stack = getattr(transform, "stack", stack_rows)
    batches = ProcessBatches(elements, batch_size, process_index, process_count, stack)
    return iterate(batches, start_step, workers)


def eval_batches(
    source: Sequence[dict[str, Any]],
    transform: grain.transforms.Map,
    *,
    batch_size: int,
    workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Returns batches of every element once, in order; the arguments are those of `train_batches`.

    Returns:
        An iterator as that of `train_batches`. Batches also hold `mask` [batch_size / process_count], which is
        False on padding and on skipped images.
    """
    elements = Masked(grain.MapDataset.source(source).map(transform), batch_size)
    return iterate(ProcessBatches(elements, batch_size, process_index, process_count), 0, workers)


def iterate(batches: ProcessBatches, start: int, workers: int) -> Iterator[Batch]:
    """Yields the batches from number `start` on; `workers` processes make them, or threads of this one if it is 0.

    Raises:
        UserError: A batch could not be made, or a worker was killed.
    """
    iterator = iter(_dataset(batches, start, workers))
    # Worker batches live in shared memory. JAX may use an array without copying it, and grain cannot free memory
    # that is still in use, so they are copied.
    to_array = np.array if workers else np.asarray
    try:
        with data_workers.starting() if workers else contextlib.nullcontext():
            batch = next(iterator, None)  # This starts the workers.
        while batch is not None:
            # `ProcessBatches` returns errors as values; this is the process where they are raised.
            if isinstance(batch, UserError):
                raise batch
            yield {name: to_array(value) for name, value in batch.items()}
            batch = next(iterator, None)
    except RuntimeError as error:
        if "terminated unexpectedly" not in str(error):  # In grain's words.
            raise
        raise UserError(
            "a data worker was killed, perhaps because memory was short; lower data.workers, then run the same "
            "command again"
        ) from error
    finally:
        iterator.close()
        if workers:
            gc.collect()  # The end of a grain iteration leaves a reference cycle that holds shared memory.


def _dataset(batches: ProcessBatches, start: int, workers: int) -> grain.IterDataset:
    dataset = grain.MapDataset.source(batches)[start:]
    # A unit of work is a whole batch, so the order of the batches does not depend on the workers.
    threads = 1 if workers else min(data_workers.cores(), 16)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + _BUFFERED_BATCHES)
    iterable = dataset.to_iter_dataset(options)
    if not workers:
        return iterable
    processes = grain.MultiprocessingOptions(workers, per_worker_buffer_size=_BUFFERED_BATCHES)
    return iterable.mp_prefetch(processes, worker_init_fn=data_workers.begin)
