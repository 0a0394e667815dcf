"""From a random-access source to batches, through grain.

Batch number t is a function of the seed and t alone: not of the number of workers, of processes, or of where a
run was resumed. So the step count is the whole state of the input, and nothing of it goes into checkpoints.
"""

import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np

from seaformer_jax.errors import UserError
from seaformer_jax.types import Batch

_BUFFERED_BATCHES = 2  # Ready batches per worker process, or beyond one per thread.


class ProcessBatches:
    """One process's rows of every global batch, as a random-access sequence of stacked elements.

    Process p of n holds the p-th of n consecutive runs of rows, so that the global array is the batch that a
    single process would have made, row for row.
    """

    def __init__(self, elements: Sequence[dict[str, Any]], batch_size: int, index: int, count: int):
        if batch_size % count:
            raise ValueError(f"batch of {batch_size} does not divide among {count} processes")
        self.elements, self.batch_size = elements, batch_size
        self.rows = batch_size // count
        self.offset = index * self.rows

    def __len__(self) -> int:
        return len(self.elements) // self.batch_size

    def __getitem__(self, step: int) -> Batch | UserError:
        """Returns an error as a value: one that is raised in a worker comes out with half of grain in tow."""
        first = int(step) * self.batch_size + self.offset
        try:
            rows = [self.elements[i] for i in range(first, first + self.rows)]
        except UserError as error:
            return error
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


class Masked:
    """Elements padded to a whole number of batches; `mask` is False on padding and on skipped images."""

    def __init__(self, elements: Sequence[dict[str, Any]], batch_size: int):
        self.elements = elements
        self.length = -(-len(elements) // batch_size) * batch_size

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        real = index < len(self.elements)
        element = self.elements[index if real else -1]
        skipped = element["skipped"] if real else 0
        return {**element, "skipped": skipped, "mask": np.bool_(real and not skipped)}


def train_batches(
    source: Sequence[dict[str, Any]],
    transform: grain.transforms.RandomMap,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Endless shuffled batches; every epoch has an order of its own and the last images of one begin the next.

    Args:
        source: random access to elements; `data.sources` has them.
        transform: random transform of one element, given the generator of its position.
        batch_size: global; divisible by `process_count`.
        seed: of the order and of the transforms.
        start_step: number of the first batch.
        workers: processes that decode and transform; 0 uses threads of this one.
        process_index, process_count: of this host.
    Returns:
        An iterator with a `close` method; batches are dictionaries of arrays [batch_size / process_count, ...].
    """
    elements = grain.MapDataset.source(source).seed(seed).shuffle().repeat().random_map(transform)
    batches = ProcessBatches(elements, batch_size, process_index, process_count)
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
    """Every element once, in order, with a `mask` [batch_size / process_count] that is False on padding."""
    elements = Masked(grain.MapDataset.source(source).map(transform), batch_size)
    return iterate(ProcessBatches(elements, batch_size, process_index, process_count), 0, workers)


def iterate(batches: ProcessBatches, start: int, workers: int) -> Iterator[Batch]:
    """Yields the batches from number `start` on; `workers` processes make them, or with 0 threads of this one."""
    iterator = iter(_dataset(batches, start, workers))
    # A copy out of the workers' shared memory: grain cannot free what JAX has taken without one.
    own = np.array if workers else np.asarray
    try:
        for batch in iterator:
            if isinstance(batch, UserError):
                raise batch
            yield {name: own(value) for name, value in batch.items()}
    finally:
        iterator.close()
        gc.collect()  # grain's end of iteration is a reference cycle that holds shared memory, too.


def _dataset(batches: ProcessBatches, start: int, workers: int) -> grain.IterDataset:
    dataset = grain.MapDataset.source(batches)[start:]
    # Whole batches are the unit of work, so that their order does not depend on who makes them.
    threads = 1 if workers else min(len(os.sched_getaffinity(0)), 16)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + _BUFFERED_BATCHES)
    iterable = dataset.to_iter_dataset(options)
    if not workers:
        return iterable
    processes = grain.MultiprocessingOptions(workers, per_worker_buffer_size=_BUFFERED_BATCHES)
    return iterable.mp_prefetch(processes, worker_init_fn=_begin_worker)


def _begin_worker(worker_index: int, worker_count: int) -> None:
    """The main process decides when its workers end; where it is killed, they end, too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
