"""The processes that decode and transform images: how they start, and what ends them."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker


def cores() -> int:
    """Returns the number of cores that this process may use, or of all where the system does not limit a process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """Blocks Ctrl-C and SIGTERM in this thread; threads and processes that start meanwhile keep them blocked.

    Both signals reach the whole process group (a terminal's Ctrl-C, Slurm's SIGTERM), but the main process decides
    when its workers end: it needs them until it has saved a checkpoint.
    """
    _start_resource_tracker()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_resource_tracker() -> None:
    """Starts the process by which Python frees shared memory, if it does not run yet.

    Otherwise it would start with the first worker, and that unblocks signals. It is not to warn of the memory that a
    killed worker leaves: there is an error about that worker already.
    """
    option = "ignore:resource_tracker"
    sys.warnoptions.append(option)  # It inherits them.
    try:
        resource_tracker.ensure_running()
    finally:
        sys.warnoptions.remove(option)


def begin(worker_index: int, worker_count: int) -> None:
    """Prepares a worker process: it exits when the main process is killed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Waits for the main process to end, then exits without any cleaning up."""
    multiprocessing.parent_process().join()
    os._exit(1)
