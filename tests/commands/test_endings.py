"""How commands end when something outside of them goes wrong: one line and an exit status, and no traceback."""

import asyncio
import ctypes
import errno
import os
import pathlib
import signal
import sys
import time

import pytest

from seaformer_jax import command
from seaformer_jax.errors import UserError
from seaformer_jax.training import checkpoint
from tests import forked
from tests.training import small
from tests.training.small_disk import SmallDisk

SLOW_DATA = {"data__source": "slow_shapes", "eval__every": 0}


def run_raising(monkeypatch, error: BaseException) -> None:
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(command.app, "run", fail)
    command.run(lambda: 0)


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (KeyboardInterrupt(), 130, "interrupted; the same command starts again, and resumes a training run"),
        (UserError("lines\nof an error"), 2, "error: lines of an error"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            2,
            "error: a file could not be written: No space left on device; free space or make it writable, then run "
            "the same command again",
        ),
        (
            OSError(errno.EACCES, "Permission denied", "run/metrics.jsonl"),
            2,
            "error: run/metrics.jsonl: Permission denied; free space or make it writable, then run the same command "
            "again",
        ),
    ],
)
def test_one_line(monkeypatch, capsys, error, status, line):
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as end:
            run_raising(monkeypatch, error)
    finally:
        signal.signal(signal.SIGINT, before)
    assert end.value.code == status
    assert capsys.readouterr().err == f"{line}\n"


def print_unraisable(function) -> None:
    """Calls `function` and treats its exception as C code does that cannot raise it."""
    ctypes.CFUNCTYPE(None)(function)()  # Ctypes is such code.


def test_transfers_that_nobody_waits_for_any_more_print_nothing(monkeypatch, capsys):
    monkeypatch.setattr(sys, "unraisablehook", None)  # Undone after the test.
    with pytest.raises(SystemExit):
        run_raising(monkeypatch, UserError("an array cannot be read"))
    capsys.readouterr()
    loop = asyncio.new_event_loop()
    loop.close()
    print_unraisable(lambda: loop.call_soon_threadsafe(print))  # What tensorstore's threads do.
    assert capsys.readouterr().err == ""
    print_unraisable(lambda: 1 // 0)
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ZeroDivisionError(), FileNotFoundError(errno.ENOENT, "No such file")])
def test_mistakes_of_the_program_keep_their_traceback(monkeypatch, capsys, error):
    with pytest.raises(SystemExit) as end:
        run_raising(monkeypatch, error)
    assert end.value.code == 1
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first.startswith("Traceback") and last.startswith(type(error).__name__)


def last_line(process: forked.Command, status: int) -> str:
    """Waits for a command; returns the last line of its output, which has no traceback and at most one error."""
    output = small.finish(process, status)
    assert "Traceback" not in output and "Exception" not in output, output
    assert output.count("error: ") == (status == 2), output
    return output.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_before_the_first_step(tmp_path, compile_cache, times):
    """The workers start, and the step compiles; a terminal's Ctrl-C reaches all of them."""
    process = small.start(tmp_path, compile_cache, data__workers=2, **SLOW_DATA)
    while process.poll() is None and not (tmp_path / "config.json").exists():
        time.sleep(0.01)
    for _ in range(times):
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)
    # The first one is noted where a checkpoint can be saved soon, and ends the command at once before.
    assert last_line(process, 130).startswith(
        ("interrupted; ", "stopped by SIGINT with a checkpoint at step ")
    )
    small.finish(small.start(tmp_path, compile_cache, data__workers=2, **SLOW_DATA))


def workers_of(process: forked.Command) -> list[int]:
    """The processes of grain, not the resource tracker of Python."""
    threads = pathlib.Path(f"/proc/{process.pid}/task").iterdir()
    return [
        int(child)
        for thread in threads
        for child in (thread / "children").read_text().split()
        if b"--multiprocessing-fork" in pathlib.Path(f"/proc/{child}/cmdline").read_bytes()
    ]


@pytest.mark.slow
def test_a_killed_worker_costs_no_step(tmp_path, compile_cache):
    changes = {"data__workers": 1, **SLOW_DATA}
    process = small.start(tmp_path, compile_cache, **changes)
    small.wait_for_step(process, tmp_path, 8)
    (worker,) = workers_of(process)
    os.kill(worker, signal.SIGKILL)
    assert last_line(process, 2).startswith(
        "error: a data worker was killed, perhaps because memory was short"
    )
    step = checkpoint.saved_steps(tmp_path)[-1]
    assert step == max(row["step"] for row in small.rows(tmp_path)) >= 8
    output = small.finish(small.start(tmp_path, compile_cache, **changes))
    assert f"step {step + 1}/24 " in output and f"step {step}/24 " not in output


@pytest.mark.slow
def test_a_disk_that_another_process_fills(tmp_path, compile_cache):
    disk = SmallDisk(tmp_path / "disk")
    try:
        workdir = disk.folder / "run"
        process = small.start(workdir, compile_cache, **SLOW_DATA)
        while process.poll() is None and 6 not in checkpoint.saved_steps(workdir):
            time.sleep(0.01)
        disk.fill()
        last_line(process, 2)
        assert 6 in checkpoint.saved_steps(workdir)
        disk.make_room()
        small.finish(small.start(workdir, compile_cache, **SLOW_DATA))
    finally:
        disk.unmount()
