"""Runs that fail: the state is saved first where it is good, and never where it is not."""

import errno
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

from seaformer_jax.errors import CorruptImageError, UserError
from seaformer_jax.training import checkpoint, lock, loop, workdir
from tests.paths import REPOSITORY
from tests.training import small


def train(folder, config, task=None) -> dict[str, float]:
    task = task or small.StandIn(config)
    return loop.train(config, task, task.create_model(), folder)


def failing(error: Exception, number: int):
    """Raises `error` instead of giving batch `number`."""

    def before_batch(index, batch):
        if index == number:
            raise error
        return batch

    return before_batch


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Workdir of a run that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("whole")
    train(workdir, small.config())
    return workdir


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (CorruptImageError("photos/7.jpg: truncated"), "photos/7.jpg: truncated"),
        (UserError("photos: No such file"), "photos: No such file"),
    ],
)
def test_data_that_fails_costs_no_step(tmp_path, whole, error, says):
    config = small.config()
    with pytest.raises(UserError, match=says):
        train(tmp_path, config, small.StandIn(config, failing(error, 6)))
    assert checkpoint.saved_steps(tmp_path) == [4, 6]
    train(tmp_path, config)
    assert small.equal(checkpoint.load_weights(tmp_path), checkpoint.load_weights(whole))


@pytest.mark.parametrize("failing_at", [1, 3])
def test_an_evaluation_that_fails_costs_no_step_and_is_repeated(tmp_path, whole, failing_at):
    """Evaluations are at steps 4, 8 and 12; each opens the data twice, for the averaged and the last weights."""
    config = small.config(checkpoint__every=0)
    task, opened = small.StandIn(config), itertools.count()
    intact = task.eval_batches

    def eval_batches():
        if next(opened) // 2 + 1 == failing_at:
            raise CorruptImageError("photos/7.jpg: truncated")
        return intact()

    task.eval_batches = eval_batches
    with pytest.raises(UserError, match=r"photos/7\.jpg: truncated"):
        train(tmp_path, config, task)
    assert checkpoint.saved_steps(tmp_path) == [4 * failing_at]
    train(tmp_path, config)
    assert small.equal(checkpoint.load_weights(tmp_path), checkpoint.load_weights(whole))
    for name in ("val/loss", "val_last/loss"):
        assert small.curve(tmp_path, name) == small.curve(whole, name)


def test_a_programming_error_in_the_data_keeps_its_traceback(tmp_path):
    config = small.config()
    with pytest.raises(ZeroDivisionError):
        train(tmp_path, config, small.StandIn(config, failing(ZeroDivisionError(), 6)))
    assert checkpoint.saved_steps(tmp_path) == [4, 6]


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        (1, "the validation loss is nan at step 1"),
        (2, "the parameters are not finite after step 1; no checkpoint"),
    ],
)
def test_a_state_that_is_not_finite_is_never_saved(tmp_path, steps, says):
    """The loss and the gradient of the step are finite; only its update is not."""
    config = small.config(total_steps=steps, checkpoint__every=1, eval__every=0, optim__lr=3e38)
    config.optim.schedule.warmup_steps = 0
    task = small.StandIn(config)
    task.loss = lambda *arguments: (1000 * small.loss(*arguments)[0], {})
    with pytest.raises(UserError, match=says):
        train(tmp_path, config, task)
    assert checkpoint.saved_steps(tmp_path) == []


def test_a_validation_loss_that_is_not_finite_is_never_saved(tmp_path):
    config = small.config()
    task = small.StandIn(config)
    summaries = itertools.chain(
        [task.summarize], itertools.repeat(lambda _: {"loss": np.nan, "accuracy": 0.9})
    )
    task.summarize = lambda metrics: next(summaries)(metrics)
    with pytest.raises(UserError, match=r"the validation loss is nan at step 8; no checkpoint of that step"):
        train(tmp_path, config, task)
    assert checkpoint.saved_steps(tmp_path) == [4]


def test_a_workdir_whose_checkpoints_are_gone_is_refused(tmp_path):
    config = small.config(total_steps=4)
    workdir.prepare_workdir(tmp_path, config, ["a"])
    workdir.prepare_workdir(tmp_path, config, ["a"])  # Nothing was saved yet.
    train(tmp_path, config)
    workdir.prepare_workdir(tmp_path, config, ["a"])
    (tmp_path / "checkpoints").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"the checkpoints of the run in .* are gone, so it cannot go on"):
        workdir.prepare_workdir(tmp_path, config, ["a"])


HOLD = """
import pathlib, sys
from seaformer_jax.training import lock
with lock.held(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of `tmp_path`."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdin=-1, stdout=-1, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_two_runs_cannot_share_a_workdir(tmp_path, holder):
    with pytest.raises(
        UserError, match=rf"is in use by process {holder.pid} on .*, started 20.*another --workdir"
    ):
        lock.held(tmp_path).__enter__()


def test_the_lock_of_a_killed_run_is_free(tmp_path, holder):
    holder.kill()
    holder.wait()
    with lock.held(tmp_path):
        pass
    with lock.held(tmp_path):  # And again after a run that ended by itself.
        pass
    (line,) = (tmp_path / "lock").read_text().splitlines()
    assert line.startswith(f"process {os.getpid()} on ")


def test_a_new_workdir_is_made_with_its_parents(tmp_path):
    with lock.held(tmp_path / "runs/new"):
        assert (tmp_path / "runs/new/lock").exists()


def test_file_systems_without_locks_are_warned_about(tmp_path, monkeypatch, caplog):
    def fail(number: int):
        def flock(*_):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(lock.fcntl, "flock", flock)

    fail(errno.ENOLCK)
    with caplog.at_level("WARNING", logger="absl"), lock.held(tmp_path):
        pass
    assert any("has no file locks" in message for message in caplog.messages)
    fail(errno.EIO)  # A disk that fails is something else.
    with pytest.raises(UserError, match="Input/output error"):
        lock.held(tmp_path).__enter__()


def test_a_workdir_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to --workdir"):
        lock.held(tmp_path / "file/run").__enter__()
