"""One device, eight devices and two processes give the same training."""

import functools
import json
import pathlib
import signal

import jax
import numpy as np
import pytest

from seaformer_jax.models.variables import split_model
from seaformer_jax.training import checkpoint, optim
from seaformer_jax.training import state as states
from tests import forked
from tests.training import eight_devices, small

STEPS = 40
# The stand-in task compiles in a second; the others prove the same of the real ones.
QUICK, *REAL = eight_devices.VARIANTS
SLOW_REAL = [pytest.param(variant, marks=pytest.mark.slow) for variant in REAL]


@pytest.fixture(scope="module")
def eight(tmp_path_factory, compile_cache):
    """Returns a function that gives (report, folder) of `eight_devices.py` for a variant."""

    @functools.cache
    def run(variant: str) -> tuple[dict, pathlib.Path]:
        folder = tmp_path_factory.mktemp(variant)
        done = forked.run(
            "tests.training.eight_devices", variant, folder, compile_cache, devices=8, timeout=900
        )
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout.splitlines()[-1])
        assert report["devices"] == [1, 8]
        return report, folder

    return run


@pytest.mark.parametrize("variant", [QUICK, *SLOW_REAL])
def test_eight_devices_equal_one(eight, variant):
    found, _ = eight(variant)
    # Moments about the running mean round more in the first steps, which shows in the up-sampling of students, whose
    # scale starts at 0. A detector's L1 loss has signs as gradients, which rounding can turn.
    assert found["weights"] < (1e-4 if variant in ("distilled", "detection") else 1e-5), found
    assert found["loss"] < (1e-4 if variant == "detection" else 1e-5), found
    assert found["moved"] > 1e-2 and found["steps"] == eight_devices.STEPS, found


@pytest.mark.slow
def test_detections_on_eight_devices_equal_those_on_one(eight):
    assert eight("detection")[0]["detections"] < 1e-3  # Pixels.


@pytest.mark.slow
def test_evaluation_on_eight_devices_equals_one(eight):
    images, pixels = eight("mixed")[0], eight("segmentation")[0]
    assert images["counts_equal"] and pixels["counts_equal"]
    assert pixels["pixels"] == 37 * 32 * 32
    assert images["eval_loss"] < 1e-6


def test_evaluation_of_the_stand_in_on_eight_devices_equals_one(eight):
    report, _ = eight(QUICK)
    assert report["counts_equal"] and report["eval_loss"] < 1e-6


def test_a_checkpoint_of_eight_devices_is_read_on_one(eight):
    assert jax.device_count() == 1
    folder, task = eight(QUICK)[1] / f"{QUICK}-8", eight_devices.create(QUICK)
    config, model = task.config, task.create_model()
    optimizer, _ = optim.create(config.optim, config.total_steps, split_model(model)[0])
    template = states.create(model, optimizer, use_ema=True)
    checkpoints = checkpoint.Checkpoints(folder, config.checkpoint, "top1")
    state, clock = checkpoints.restore(template)
    checkpoints.close()
    assert int(state.step) == eight_devices.STEPS and clock["train"] > 0
    assert all(leaf.sharding == jax.tree.leaves(template)[0].sharding for leaf in jax.tree.leaves(state))
    step, *weights = checkpoint.load_weights(folder, use_ema=False)
    assert step == eight_devices.STEPS
    assert small.equal(weights, [state.params, state.batch_stats])
    assert small.equal(
        checkpoint.load_weights(folder)[1:], tuple(state.ema[key] for key in ("params", "batch_stats"))
    )


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path, compile_cache):
    """A run of two processes, stopped by a signal to one of them and resumed, against a run of one process."""
    one, two = tmp_path / "one", tmp_path / "two"
    changes = {"total_steps": STEPS, "eval__every": 15, "checkpoint__every": 0}
    small.finish(small.start(one, compile_cache, devices=2, **changes))

    changes["data__source"] = "slow_shapes"
    processes = small.start_two(two, compile_cache, **changes)
    small.wait_for_step(processes[0], two, 1)
    processes[1].send_signal(signal.SIGTERM)
    outputs = [small.finish(process, 143) for process in processes]
    (step,) = checkpoint.saved_steps(two)
    assert 0 < step < STEPS
    assert all(f"stopped by SIGTERM with a checkpoint at step {step};" in output for output in outputs)

    outputs = [small.finish(process) for process in small.start_two(two, compile_cache, **changes)]
    assert f"step {step + 1}/{STEPS} " in outputs[0]
    assert f"step {step}/{STEPS} " not in outputs[0]
    assert checkpoint.saved_steps(two) == [step, STEPS]
    found, expected = (checkpoint.load_weights(folder) for folder in (two, one))
    assert found[0] == expected[0] == STEPS
    assert small.distance(found[1:], expected[1:]) < 1e-5
    for name in ("train/loss", "train/grad_norm", "val/loss"):
        found, expected = small.curve(two, name), small.curve(one, name)
        assert found.keys() == expected.keys()
        assert np.allclose(list(found.values()), list(expected.values()), rtol=0, atol=1e-5)
    for name in ("val/top1", "val/top5", "val/images"):
        assert small.curve(two, name) == small.curve(one, name)
    steps = [row["step"] for row in small.rows(two) if "train/loss" in row]
    assert steps == list(range(1, STEPS + 1))  # Of one process only.
