"""One device, eight devices and two processes give the same training."""

import json
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from seaformer_jax import tasks
from seaformer_jax.training import checkpoint, optim
from seaformer_jax.training import state as states
from tests.training import eight_devices, small

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def eight(tmp_path_factory, compile_cache):
    """(report, folder) of `eight_devices.py`."""
    folder = tmp_path_factory.mktemp("eight")
    arguments = [sys.executable, "-m", "tests.training.eight_devices", str(folder), str(compile_cache)]
    output = small.finish(small.start(arguments, devices=8))
    report = json.loads(output.splitlines()[-1])
    assert report["devices"] == [1, 8]
    return report, folder


@pytest.mark.parametrize("variant", eight_devices.VARIANTS)
def test_eight_devices_equal_one(eight, variant):
    found = eight[0][variant]
    assert found["state"] < 1e-5, found
    assert found["loss"] < 1e-5, found
    assert found["moved"] > 1e-2, found


def test_evaluation_on_eight_devices_equals_one(eight):
    assert eight[0]["counts_equal"]
    assert eight[0]["eval_loss"] < 1e-6


def test_a_checkpoint_of_eight_devices_is_read_on_one(eight):
    assert jax.device_count() == 1
    folder = eight[1]
    config = eight_devices.record(**eight_devices.VARIANTS["bn_groups"])
    model = tasks.create(config).create_model()
    optimizer, _ = optim.create(config.optim, config.total_steps, states.split_model(model)[0])
    template = states.create(model, optimizer, use_ema=True)
    saved = np.load(folder / "state.npz")
    checkpoints = checkpoint.Checkpoints(folder, config.checkpoint, "top1")
    state, clock = checkpoints.restore(template)
    checkpoints.close()
    assert clock == {"train": 1.0}
    leaves = jax.tree.leaves(state)
    assert len(leaves) == len(saved.files)
    assert all(np.array_equal(leaf, saved[name]) for leaf, name in zip(leaves, saved.files, strict=True))
    step, params, stats = checkpoint.load_weights(folder, use_ema=False)
    assert step == eight_devices.STEPS
    assert small.equal((params, stats), (state.params, state.batch_stats))


def start_two(workdir, cache, **changes) -> list[subprocess.Popen]:
    """Starts two processes of one device each, in one workdir."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    changes |= {"distributed__enabled": True, "distributed__coordinator": f"localhost:{port}"}
    changes |= {"distributed__num_processes": 2}
    return [
        small.start(small.command(workdir, cache, distributed__process_id=index, **changes))
        for index in range(2)
    ]


def test_two_processes_equal_one(tmp_path, compile_cache):
    """Twelve steps of one process, of two, and of two that are stopped and go on."""
    changes = {"total_steps": 12, "eval__every": 8}
    one, two = tmp_path / "one", tmp_path / "two"
    small.finish(small.start(small.command(one, compile_cache, **changes), devices=2))
    outputs = [small.finish(process) for process in start_two(two, compile_cache, **changes)]
    assert "step 12/12" in outputs[0]

    found, expected = (checkpoint.load_weights(folder) for folder in (two, one))
    assert found[0] == expected[0] == 12
    assert small.distance(found[1:], expected[1:]) < 1e-5
    for name in ("train/loss", "train/grad_norm", "val/loss"):
        found, expected = small.curve(two, name), small.curve(one, name)
        assert found.keys() == expected.keys()
        assert np.allclose(list(found.values()), list(expected.values()), rtol=0, atol=1e-5)
    for name in ("val/top1", "val/top5", "val/images"):
        assert small.curve(two, name) == small.curve(one, name)
    assert len(small.rows(two)) == len(small.rows(one))  # Written by one process only.


def test_two_processes_stop_together_and_resume(tmp_path, compile_cache):
    """A signal to one of them stops both at the same step, and one process may go on alone."""
    changes = {"data__source": "slow_shapes", "total_steps": 60, "eval__every": 0, "checkpoint__every": 0}
    processes = start_two(tmp_path, compile_cache, **changes)
    deadline = time.monotonic() + 240
    while not small.rows(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)
    outputs = [small.finish(process, 143) for process in processes]
    (step,) = checkpoint.saved_steps(tmp_path)
    assert 0 < step < 60
    assert all(f"stopped by SIGTERM with a checkpoint at step {step};" in output for output in outputs)

    outputs = [small.finish(process) for process in start_two(tmp_path, compile_cache, **changes)]
    assert f"step {step + 1}/60 " in outputs[0]
    assert f"step {step}/60 " not in outputs[0]
    assert checkpoint.saved_steps(tmp_path) == [step, 60]
