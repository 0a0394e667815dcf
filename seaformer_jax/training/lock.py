"""An advisory lock on a workdir, because two runs that write into one destroy each other."""

import contextlib
import datetime
import errno
import os
import platform
from collections.abc import Iterator

import jax
from absl import logging
from etils import epath

from seaformer_jax.errors import UserError, reason
from seaformer_jax.paths import in_bucket

try:
    import fcntl
except ImportError:  # Windows has no such locks.
    fcntl = None

_NAME = "lock"
_UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextlib.contextmanager
def held(workdir: epath.Path) -> Iterator[None]:
    """Holds the lock of `workdir`; with several processes, the first one holds it for all.

    The system releases the lock when the process ends, however it ends. No lock has to be removed by hand: the file
    stays, and only says who held it last. On file systems without locks, a warning is logged and nothing is held.

    Raises:
        UserError: Another process holds it; the message names that process.
    """
    if jax.process_index() > 0:
        yield
        return
    if in_bucket(workdir):
        logging.warning("a bucket has no file locks: make sure that no other run writes into %s", workdir)
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(workdir / _NAME, "a+"))
            _take(file, workdir)
        except OSError as error:
            raise UserError(
                f"cannot write to --workdir {workdir}: {reason(error)}; choose another"
            ) from error
        yield


def _take(file, workdir: epath.Path) -> None:
    try:
        if fcntl is None:
            raise OSError(errno.ENOSYS, "this system has no flock")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read().strip() or "another process"
        raise UserError(
            f"{workdir} is in use by {holder}; wait for it, stop it, or choose another --workdir"
        ) from error
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        logging.warning(
            "%s has no file locks (%s): make sure that no other run writes into it", workdir, error.strerror
        )
        return
    file.seek(0)
    file.truncate()
    now = datetime.datetime.now().isoformat(timespec="seconds")
    file.write(f"process {os.getpid()} on {platform.node()}, started {now}\n")
    file.flush()
