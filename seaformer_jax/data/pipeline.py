"""From a random-access source to batches, through grain.

Batch number t is a function of the seed and t alone: not of the number of workers, of processes, or of where a
run was resumed. So the step count is the whole state of the input, and nothing of it goes into checkpoints.
"""

import os
import signal
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np

Batch = dict[str, np.ndarray]

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

    def __getitem__(self, step: int) -> Batch:
        first = int(step) * self.batch_size + self.offset
        rows = [self.elements[i] for i in range(first, first + self.rows)]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


class Masked:
    """Elements padded to a whole number of batches; `mask` is False on padding and on skipped images."""

    def __init__(self, elements: Sequence[dict[str, Any]], batch_size: int):
        self.elements = elements
        self.length = -(-len(elements) // batch_size) * batch_size

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        element = self.elements[min(index, len(self.elements) - 1)]
        return {**element, "mask": np.bool_(index < len(self.elements) and not element["skipped"])}


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
    return _iterate(batches, start_step, workers)


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
    return _iterate(ProcessBatches(elements, batch_size, process_index, process_count), 0, workers)


def _iterate(batches: ProcessBatches, start: int, workers: int) -> Iterator[Batch]:
    dataset = grain.MapDataset.source(batches)[start:]
    # Whole batches are the unit of work, so that their order does not depend on who makes them.
    threads = 1 if workers else min(len(os.sched_getaffinity(0)), 16)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + _BUFFERED_BATCHES)
    iterable = dataset.to_iter_dataset(options)
    if workers:
        processes = grain.MultiprocessingOptions(workers, per_worker_buffer_size=_BUFFERED_BATCHES)
        iterable = iterable.mp_prefetch(processes, worker_init_fn=_ignore_interrupts)
    return iter(iterable)


def _ignore_interrupts(worker_index: int, worker_count: int) -> None:
    """Ctrl-C reaches the whole process group; the main process decides when its workers end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
