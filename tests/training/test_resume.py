"""Runs of the real command that are killed or stopped, and go on as if nothing had happened."""

import os
import signal
import time

import pytest

from seaformer_jax.training import checkpoint
from tests import forked
from tests.training import small

STEPS = 24


@pytest.fixture(scope="module")
def reference(tmp_path_factory, compile_cache):
    """Workdir of a run that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("reference")
    small.finish(small.start(workdir, compile_cache))
    return workdir


def interrupt(process: forked.Command, workdir, step: int, number: int) -> None:
    """Sends a signal when the run has come to `step`; Ctrl-C, as a terminal does, to the workers as well."""
    small.wait_for_step(process, workdir, step)
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)


def wait_for_group(group: int) -> bool:
    """Whether all processes of a group end soon."""
    for _ in range(300):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize(
    "workers, stop, status",
    [(0, signal.SIGTERM, 143), pytest.param(2, signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_killed_then_stopped_then_finished(tmp_path, reference, compile_cache, workers, stop, status):
    changes = {"data__source": "slow_shapes", "data__workers": workers, "eval__every": 0}
    process = small.start(tmp_path, compile_cache, **changes)
    interrupt(process, tmp_path, 8, signal.SIGKILL)
    small.finish(process, -signal.SIGKILL)
    assert wait_for_group(process.pid), "the workers of a killed run live on"
    killed_at = max(row["step"] for row in small.rows(tmp_path))
    assert 8 <= killed_at < STEPS

    process = small.start(tmp_path, compile_cache, **changes)
    interrupt(process, tmp_path, killed_at + 4, stop)
    output = small.finish(process, status)
    step = checkpoint.saved_steps(tmp_path)[-1]
    assert killed_at + 4 <= step < STEPS
    assert step == max(row["step"] for row in small.rows(tmp_path))
    line = f"stopped by {stop.name} with a checkpoint at step {step}; run the same command to resume"
    assert output.splitlines()[-1] == line

    output = small.finish(small.start(tmp_path, compile_cache, **changes))
    assert "Traceback" not in output and "resource_tracker" not in output and "Exception" not in output
    first_line = next(line for line in output.splitlines() if line.startswith("step "))
    assert first_line.startswith(f"step {step + 1}/{STEPS} ")
    for use_ema in (False, True):
        expected = checkpoint.load_weights(reference, use_ema)
        assert expected[0] == STEPS
        assert small.equal(checkpoint.load_weights(tmp_path, use_ema), expected)
    assert list(small.curve(reference, "train/loss")) == list(range(1, STEPS + 1))
    for name in ("train/loss", "train/accuracy", "train/grad_norm", "train/lr"):
        assert small.curve(tmp_path, name) == small.curve(reference, name)
    for name in ("val/loss", "val/top1", "val/top5", "val/images"):
        assert small.curve(tmp_path, name) == {STEPS: small.curve(reference, name)[STEPS]}
