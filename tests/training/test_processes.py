"""Several processes: what ends one of them with an error ends all of them, with one line."""

import contextlib
import os
import re
import signal
import socket
import sys
import threading
import time

import jax
import pytest
from jax._src import xla_bridge
from ml_collections import ConfigDict

from experiments.forked import free_port
from seaformer_jax import processes
from seaformer_jax.errors import UserError
from seaformer_jax.training import checkpoint
from tests import forked
from tests.paths import REPOSITORY
from tests.training import small

SLOW_DATA = {"data__source": "slow_shapes", "eval__every": 0, "checkpoint__every": 6}
HERE = "localhost:12345"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"coordinator": "localhost"}, "distributed.coordinator is 'localhost'; expected HOST:PORT"),
        (
            {"coordinator": "localhost:http"},
            "distributed.coordinator is 'localhost:http'; expected HOST:PORT",
        ),
        ({"coordinator": ":12345"}, "distributed.coordinator is ':12345'; expected HOST:PORT"),
        (
            {"coordinator": "localhost:70000"},
            "distributed.coordinator is 'localhost:70000'; expected HOST:PORT",
        ),
        ({"coordinator": "nowhere.invalid:12345"}, "nowhere.invalid:12345': no such host"),
        (
            {"num_processes": 2, "process_id": 0},
            "coordinator_address should be defined. No cluster was recog",
        ),
        (
            {"coordinator": HERE, "process_id": 0},
            "Number of processes must be defined. .*distributed.num_processes",
        ),
        ({"coordinator": HERE, "num_processes": 2}, "process id .*must be defined. .*distributed.process_id"),
        ({}, "should be defined. No cluster was recognised: set distributed.coordinator"),
    ],
)
def test_wrong_fields_are_one_line(monkeypatch, fields, says):
    monkeypatch.setattr(xla_bridge, "backends_are_initialized", lambda: False)
    config = ConfigDict({"enabled": True, "coordinator": "", "num_processes": 0, "process_id": -1} | fields)
    with pytest.raises(UserError, match=says):
        processes.connect(config)
    assert not jax.distributed.is_initialized()


def test_one_process_ends_by_itself(capsys):
    processes.end_all("error: nothing", 2)
    assert capsys.readouterr().err == "error: nothing\n"


class StoreOfALostProcess:
    """A store whose host is gone; JAX's own thread notices that while ours is about to say so."""

    def key_value_set(self, key: str, value: str) -> None:
        if key == processes._ENDED:
            threading.Thread(target=processes._lost, daemon=True).start()
            time.sleep(0.2)
        raise jax.errors.JaxRuntimeError("UNAVAILABLE: Socket closed")


def test_a_process_that_two_threads_end_prints_one_line(monkeypatch, capsys):
    monkeypatch.setattr(processes, "_ending", threading.Lock())
    monkeypatch.setattr(processes, "_connected", threading.Event())
    monkeypatch.setattr(processes, "_store", StoreOfALostProcess)
    monkeypatch.setattr(os, "_exit", sys.exit)
    processes._connected.set()
    with pytest.raises(SystemExit, match="2"):
        processes.end_all(*processes._LOST)
    assert capsys.readouterr().err == processes._LOST[0] + "\n"


def finish_with_one_line(process: forked.Command) -> str:
    """Waits for a process that ends with status 2; returns the last line of its output, the only one about errors."""
    output = small.finish(process, 2)
    assert "Traceback" not in output and "Fatal" not in output and "Check failure" not in output, output
    assert "waiting for 2 of 2 processes at localhost:" in output
    assert output.count("error: ") == 1, output
    assert not re.search(r"^[WEF]\d{4} \d\d:", output, re.MULTILINE), output  # Lines of JAX's C++ threads.
    return output.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [0, 1])
def test_a_user_error_in_one_process_ends_all(tmp_path, compile_cache, wrong):
    gone = tmp_path / "gone"
    two = small.start_two(tmp_path / "run", compile_cache, own={wrong: {"init_from": gone}}, **SLOW_DATA)
    lines = [finish_with_one_line(process) for process in two]
    assert all(f"error: init_from: {gone} does not exist" in line for line in lines), lines
    assert lines[1 - wrong].startswith(f"process {wrong}: ")


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_all(tmp_path, compile_cache, killed):
    two = small.start_two(tmp_path, compile_cache, **SLOW_DATA)
    small.wait_for_step(two[0], tmp_path, 8)
    two[killed].send_signal(signal.SIGKILL)
    assert "is lost" in finish_with_one_line(two[1 - killed])
    assert checkpoint.saved_steps(tmp_path) == [6]
    for process in small.start_two(tmp_path, compile_cache, **SLOW_DATA):
        small.finish(process)


@pytest.mark.slow
def test_a_process_that_never_starts(tmp_path, compile_cache):
    here = f"localhost:{free_port()}"
    changes = {"enabled": True, "coordinator": here, "num_processes": 2, "process_id": 0}
    changes = {f"distributed__{key}": value for key, value in changes.items()}
    process = small.start(tmp_path, compile_cache, command="tests.training.impatient", **changes)
    assert f"waited in vain for 2 of 2 processes at {here} (5 s are over)" in finish_with_one_line(process)


def slurm_job() -> int:
    """The number of a job whose port, which JAX computes from it, is free on this machine."""
    for job in range(2**12):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("localhost", job + 2**16 - 2**12))
            return job
    raise AssertionError("no port is free")


def test_slurm_says_which_processes_there_are(tmp_path):
    """Both know of both: their devices are too many for the batch. That needs no compilation."""
    job = slurm_job()
    flags = ["--config", REPOSITORY / "tests/training/nano.py", "--workdir", tmp_path]
    flags += ["--config.distributed.enabled=True", "--config.batch_size=14"]
    module = "tests.training.slurm_task"
    tasks = [forked.Command(module, [task, job, *flags], devices=2, merged=True) for task in range(2)]
    for task in tasks:
        output = small.finish(task, 2)
        assert "waiting for all processes at the address that the cluster gives" in output
        assert "batch_size = 14 does not divide among 4 devices; use 12 or 16" in output.splitlines()[-1]
