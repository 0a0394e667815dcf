"""The training loop on a stand-in task: order, resuming, stopping, what it refuses."""

import itertools
import signal

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seaformer_jax import mesh as meshes
from seaformer_jax.errors import UserError
from seaformer_jax.evaluation.evaluator import Evaluator
from seaformer_jax.training import checkpoint, loop, reporting
from seaformer_jax.training.checkpoint_files import read_metrics
from seaformer_jax.training.stop import Stopped
from tests.training import small

HANDLERS = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}  # Before any run.


def train(workdir, config, **options) -> dict[str, float]:
    workdir.mkdir(exist_ok=True)
    task = small.StandIn(config, **options)
    return loop.train(config, task, task.create_model(), workdir)


def trained(workdir):
    """(step, params, batch_stats, averaged params, averaged batch_stats) of the newest checkpoint."""
    return (
        *checkpoint.load_weights(workdir, use_ema=False),
        *checkpoint.load_weights(workdir, use_ema=True)[1:],
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(workdir, returned results) of a run that nothing interrupted: 12 steps, evaluation and saving every 4."""
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, train(workdir, small.config())


def test_it_learns(whole):
    losses = small.curve(whole[0], "train/loss")
    assert losses[12] < losses[4] - 0.2


def test_rows_come_when_they_are_due(whole):
    """Progress every 5 steps, before every checkpoint and in the end."""
    workdir, results = whole
    assert list(small.curve(workdir, "train/loss")) == [4, 5, 8, 10, 12]
    assert list(small.curve(workdir, "val/accuracy")) == [4, 8, 12]
    assert results["accuracy"] == small.curve(workdir, "val/accuracy")[12]
    assert checkpoint.saved_steps(workdir)[-2:] == [8, 12]


def test_rows_say_the_rate_of_the_step(whole):
    """The rate of step 12 is the one of update number 11: half a cosine from 0.05 at 2 to 0 at 12."""
    expected = 0.05 * (1 + np.cos(np.pi * 9 / 10)) / 2
    assert small.curve(whole[0], "train/lr")[12] == pytest.approx(expected, rel=1e-5)


def test_training_rows_are_means_over_their_window(tmp_path, whole):
    train(tmp_path / "each", small.config(log_every=1))
    each = small.curve(tmp_path / "each", "train/loss")
    assert small.curve(whole[0], "train/loss")[4] == pytest.approx(np.mean([each[i] for i in (1, 2, 3, 4)]))
    assert small.curve(whole[0], "train/loss")[10] == pytest.approx(np.mean([each[i] for i in (9, 10)]))


def test_a_checkpoint_has_the_metrics_of_its_own_step_or_none(tmp_path):
    config = small.config(total_steps=8, checkpoint__every=3, checkpoint__keep=3)  # Evaluated at 4 and 8.
    results = train(tmp_path, config)
    found = {
        step: read_metrics(tmp_path / f"checkpoints/{step}") for step in checkpoint.saved_steps(tmp_path)
    }
    assert found == {3: {}, 6: {}, 8: results}


@pytest.mark.parametrize("use_ema", [True, False])
def test_evaluation_sees_the_state_that_is_saved(tmp_path, use_ema):
    config = small.config(total_steps=4, eval__use_ema=use_ema)
    results = train(tmp_path, config)
    task = small.StandIn(config)
    evaluator = Evaluator(
        nnx.graphdef(task.create_model()), task.eval_metrics, task.eval_batches, meshes.create_mesh()
    )
    averaged, last = (
        task.summarize(evaluator(*checkpoint.load_weights(tmp_path, use_ema=use)[1:]))
        for use in (True, False)
    )
    assert averaged["loss"] != last["loss"]
    assert results == pytest.approx(averaged if use_ema else last)
    # The last weights have a column of their own beside the averaged ones.
    assert small.curve(tmp_path, "val/loss")[4] == pytest.approx(results["loss"])
    assert small.curve(tmp_path, "val_last/loss") == ({4: pytest.approx(last["loss"])} if use_ema else {})


class Interruption:
    """Sends a signal to the process when a certain batch is asked for; notes which batches were."""

    def __init__(self, at: int, number: int):
        self.at, self.number, self.seen = at, number, []

    def __call__(self, number: int, batch: dict) -> dict:
        self.seen.append(number)
        if number == self.at:
            signal.raise_signal(self.number)
        return batch


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_resumes_exactly(tmp_path, whole, number, status):
    interruption = Interruption(7, number)
    with pytest.raises(Stopped, match=f"{number.name} with a checkpoint at step 7") as stopped:
        train(tmp_path, small.config(), before_batch=interruption)
    assert stopped.value.exit_status == status
    assert checkpoint.saved_steps(tmp_path) == [4, 7]
    assert interruption.seen == list(
        range(8)
    )  # Batch 7 was on its way to the devices, and is made anew below.

    interruption = Interruption(-1, number)
    results = train(tmp_path, small.config(), before_batch=interruption)
    assert interruption.seen == list(range(7, 12))
    assert small.equal(trained(tmp_path), trained(whole[0]))
    assert results == whole[1]
    expected = small.curve(whole[0], "val/loss")
    assert small.curve(tmp_path, "val/loss") == expected


def test_a_signal_during_the_last_step_changes_nothing(tmp_path, whole, monkeypatch):
    take, numbers = loop.Prefetched.take, itertools.count()

    def interrupted(upcoming):
        if next(numbers) == 11:
            signal.raise_signal(signal.SIGTERM)
        return take(upcoming)

    monkeypatch.setattr(loop.Prefetched, "take", interrupted)
    assert train(tmp_path, small.config()) == whole[1]
    assert checkpoint.saved_steps(tmp_path)[-1] == 12


def test_the_next_batch_is_sent_before_the_metrics_of_a_step_are_awaited(tmp_path, monkeypatch):
    events = []

    def noted(event, function):
        def call(*arguments):
            events.append(event)
            return function(*arguments)

        return call

    monkeypatch.setattr(meshes, "put_batch", noted("send", meshes.put_batch))
    monkeypatch.setattr(reporting.Window, "close", noted("wait", reporting.Window.close))
    train(tmp_path, small.config(total_steps=4, log_every=1, eval__every=0, checkpoint__every=0))
    # Each wait is for the step before it, and the last step has no batch after it.
    assert events == ["send", "send", "wait", "send", "wait", "send", "wait", "wait"]


def test_a_traced_run_ends_with_the_same_weights(tmp_path, whole):
    results = train(tmp_path, small.config(profile__skip=3, profile__steps=2))
    assert results == whole[1] and small.equal(trained(tmp_path), trained(whole[0]))
    assert small.steps_traced(tmp_path / "profile") == [4, 5]


def test_a_run_stopped_before_its_first_step_has_a_checkpoint(tmp_path, monkeypatch):
    class AtOnce(loop.StopRequest):
        def requested(self, step: int) -> bool:
            self.signal = signal.SIGTERM
            return True

    monkeypatch.setattr(loop, "StopRequest", AtOnce)
    with pytest.raises(Stopped, match="checkpoint at step 0"):
        train(tmp_path, small.config())
    assert checkpoint.saved_steps(tmp_path) == [0]


def test_handlers_are_as_before(whole):
    assert {number: signal.getsignal(number) for number in HANDLERS} == HANDLERS


def test_a_complete_run_has_nothing_to_do(whole):
    before = (whole[0] / "metrics.jsonl").read_text()

    def unexpected(number, batch):
        raise AssertionError(f"batch {number} asked for")

    assert train(whole[0], small.config(), before_batch=unexpected) == {}
    assert (whole[0] / "metrics.jsonl").read_text() == before


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    def spoil(number, batch):
        return batch if number < 6 else {**batch, "image": batch["image"] * np.float32(np.nan)}

    with pytest.raises(UserError, match=r"loss is not finite: first at step 7, in the window of steps 6-8\."):
        train(tmp_path, small.config(), before_batch=spoil)
    assert checkpoint.saved_steps(tmp_path) == [4]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_gradient_that_is_not_finite_stops_the_run_before_it_is_saved(tmp_path):
    class Steep(small.StandIn):
        @staticmethod
        def loss(model, batch, key):
            value, metrics = small.loss(model, batch, key)
            return value + jnp.sqrt(0 * value), metrics  # Infinite slope at 0.

    config = small.config()
    task = Steep(config)
    with pytest.raises(UserError, match="gradient is not finite: first at step 1"):
        loop.train(config, task, task.create_model(), tmp_path)
    assert checkpoint.saved_steps(tmp_path) == []


def test_skipped_files_are_counted(tmp_path):
    def skip(number, batch):
        return {**batch, "skipped": np.array([2, 0, 0, 1, 0, 0, 0, 0]) * (number < 2)}

    train(tmp_path, small.config(total_steps=4, log_every=2), before_batch=skip)
    assert small.curve(tmp_path, "train/skipped") == {2: 6, 4: 0}


def test_a_batch_that_does_not_divide_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"batch_size = 8 .* 1 devices x 3 microbatches; use 6 or 9"):
        train(tmp_path, small.config(optim__accumulate=3))
