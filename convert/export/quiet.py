"""Keeps what converters and runtimes print out of the terminal, where the lines of the export are."""

import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterator

_FILES = (1, 2)  # Standard output and errors, as C and C++ write to them.


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drops everything that is printed, logged below ERROR or warned about, from Python and from C++."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    kept = [os.dup(number) for number in _FILES]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for number in _FILES:
            os.dup2(nowhere, number)
        logging.disable(logging.WARNING)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)
        for number, original in zip(_FILES, kept, strict=True):
            os.dup2(original, number)
        for number in (nowhere, *kept):
            os.close(number)
