"""Connects the processes of a run on several hosts, and ends all of them when one of them ends with an error.

By itself, JAX leaves the others in their next collective operation, where they wait for minutes, and then aborts them
with pages of log. So a process that ends with an error leaves a message in the key-value store of JAX's coordination
service, which the first process hosts, and every process looks for such a message once a second.
"""

import atexit
import contextlib
import ctypes
import functools
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn

import jax
from absl import logging
from jax._src import distributed
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from seaformer_jax.errors import UserError

_CONNECT_SECONDS = 300  # JAX's own default.
_POLL_SECONDS = 1.0
_FAREWELL_SECONDS = 5.0  # The first process stays this long, so that the others can read the message.
# Keys of the store: the message, and who is about to end.
_ENDED, _LEAVING = "seaformer_jax/ended", "seaformer_jax/leaving/"
_LOST = "error: the connection to another process of the run is lost; start all of them again to resume", 2
_LOST_WORDS = re.compile("Gloo|Connection (closed|reset)|Socket closed|UNAVAILABLE|heartbeat")

_ending = threading.Lock()  # Held by the thread that ends this process.
_connected = threading.Event()
_left = threading.Event()  # Set once this process has left the others without an error.


def connect(config: ConfigDict) -> None:
    """Connects this process to the others of the run; call it before JAX uses a device.

    Args:
        config: The section `distributed` of the config. Empty fields leave the choice to
            `jax.distributed.initialize`, which detects TPU pods, Slurm and Open MPI.
    Raises:
        UserError: The fields are wrong, or not all processes have come in time.
    """
    if not config.enabled:
        return
    if config.coordinator:
        _check_address(config.coordinator)
    count = f"{config.num_processes} of {config.num_processes}" if config.num_processes else "all"
    awaited = f"{count} processes at {config.coordinator or 'the address that the cluster gives'}"
    logging.info("waiting for %s", awaited)
    _initialize(config, awaited)
    _connected.set()
    watcher = threading.Thread(target=_watch, args=[_store()], daemon=True)
    watcher.start()
    atexit.register(_leave, watcher)
    # The first collective connects the hosts, and Gloo (on CPUs) waits only 30 s for the last of them. It therefore
    # runs here, while the hosts are in step, and not after each has opened its data and created its model.
    multihost_utils.sync_global_devices("start")
    # What JAX's own threads log from here on is a lost process, in several lines of C++ before our one. The devices
    # exist by now, so what their drivers had to say has been seen.
    if jax.config.jax_logging_level == "NOTSET":
        jax.config.update("jax_logging_level", "CRITICAL")


def _initialize(config: ConfigDict, awaited: str) -> None:
    try:
        with _own_reaction_to_lost_processes():
            jax.distributed.initialize(
                coordinator_address=config.coordinator or None,
                num_processes=config.num_processes or None,
                process_id=config.process_id if config.process_id >= 0 else None,
                initialization_timeout=_CONNECT_SECONDS,
            )
    except ValueError as error:  # JAX names the field that is missing.
        raise UserError(
            f"{error} No cluster was recognised: set distributed.coordinator to HOST:PORT of the first process, "
            "distributed.num_processes and distributed.process_id"
        ) from error
    except RuntimeError as error:
        # The callback fails in this thread when time is up.
        reason = str(error).splitlines()[0].replace("std::bad_cast", f"{_CONNECT_SECONDS} s are over")
        raise UserError(
            f"waited in vain for {awaited} ({reason}); start the same command on every host, and check the address, "
            "the firewall and the logs of the others"
        ) from error


def _check_address(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise UserError(f"distributed.coordinator is {address!r}; expected HOST:PORT of the first process")
    try:
        socket.getaddrinfo(host.strip("[]"), port)
    except OSError as error:
        raise UserError(f"distributed.coordinator is {address!r}: no such host ({error.strerror})") from error


@contextlib.contextmanager
def _own_reaction_to_lost_processes() -> Iterator[None]:
    """Ends this process by `_lost` when the coordination service reports that another process is lost.

    By default the client of the service aborts the process with a page of log. It takes a callback instead, but
    `jax.distributed.initialize` does not pass one on, and jaxlib 0.10 cannot call one that is written in Python: it
    fails to convert the argument, and its exception reaches C++'s handler of uncaught ones. So `_lost` is that, too.
    """
    if sys.platform == "linux":
        ctypes.CDLL("libstdc++.so.6")._ZSt13set_terminatePFvvE(_terminate_handler)
    create = distributed._jax.get_distributed_runtime_client
    distributed._jax.get_distributed_runtime_client = functools.partial(
        create, missed_heartbeat_callback=_lost
    )
    try:
        yield
    finally:
        distributed._jax.get_distributed_runtime_client = create


def _store() -> Any:
    """Returns the client of the key-value store that all processes share; None in a run of one process."""
    return distributed.global_state.client


def end_all(lines: str, status: int) -> None:
    """Prints `lines` and ends all processes of the run, this one too; only prints them in a run of one process.

    Args:
        lines: What went wrong, on stderr; the other processes print the last line.
        status: Exit status of all processes.
    """
    if (store := _store()) is None:
        _print(lines)
        return
    _begin_end()
    _print(lines)
    if _connected.is_set():
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # Another process was faster.
            store.key_value_set(_ENDED, f"{status} process {jax.process_index()}: {lines.splitlines()[-1]}")
        _say_farewell(store)
    os._exit(status)  # Not sys.exit: JAX's clean-up would wait for the others.


def lost_connection(error: BaseException) -> tuple[str, int] | None:
    """Returns the line and the exit status that `error` stands for if another process has ended, else None."""
    if _store() is None or not _LOST_WORDS.search(str(error)):
        return None
    return _read_message(_store()) or _LOST


def _watch(store: Any) -> None:
    """Ends this process as soon as another one has ended with an error."""
    while not _left.wait(_POLL_SECONDS):
        if message := _read_message(store):
            line, status = message
            _begin_end()
            _print(line)
            _say_farewell(store)
            os._exit(status)


def _read_message(store: Any) -> tuple[str, int] | None:
    try:
        status, line = store.key_value_try_get(_ENDED).split(" ", 1)
    except jax.errors.JaxRuntimeError:  # There is no message.
        return None
    return line, int(status)


def _begin_end() -> None:
    """Returns in the first thread that ends this process, so that only that one prints; blocks all others.

    A lost process is noticed by several threads: the one that waits for its data and those of JAX.
    """
    if not _ending.acquire(blocking=False):
        threading.Event().wait()


def _say_farewell(store: Any) -> None:
    """Tells the first process, which hosts the store, that this one is ending; the first one waits for the others."""
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        store.key_value_set(f"{_LEAVING}{jax.process_index()}", "")
        deadline = time.monotonic() + _FAREWELL_SECONDS
        while jax.process_index() == 0 and time.monotonic() < deadline:
            if len(store.key_value_dir_get(_LEAVING)) == jax.process_count():
                break
            time.sleep(0.1)


def _lost(*_: object) -> NoReturn:
    _begin_end()
    line, status = _LOST
    _print(line)
    os._exit(status)


_terminate_handler = ctypes.CFUNCTYPE(None)(_lost)


def _print(lines: str) -> None:
    sys.stdout.flush()
    print(lines, file=sys.stderr, flush=True)


def _leave(watcher: threading.Thread) -> None:
    """Waits for the other processes at the end of the run; meanwhile their errors are still watched for."""
    try:
        jax.distributed.shutdown()
    except jax.errors.JaxRuntimeError:
        _lost()
    _left.set()
    watcher.join()
