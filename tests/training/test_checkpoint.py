"""Checkpoints: what is kept, what is refused, and what a damaged one leads to."""

import collections
import logging
import shutil

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from seaformer_jax.errors import UserError
from seaformer_jax.training import checkpoint
from seaformer_jax.training import state as states
from seaformer_jax.training.step import make_train_step
from tests.training import small

OPTIMIZER = optax.sgd(0.1, momentum=0.9)


def initial(use_ema: bool = True) -> states.TrainState:
    return states.create(small.Net(), OPTIMIZER, use_ema)


def at(step: int, use_ema: bool = True) -> states.TrainState:
    """A state whose values tell its step."""
    return jax.tree.map(lambda x: x + np.asarray(step, x.dtype), initial(use_ema))


@pytest.fixture
def opened(tmp_path):
    """Opens the checkpoints of `tmp_path`, again and again if need be; closes them in the end."""
    managers = []

    def open_them(keep: int = 2) -> checkpoint.Checkpoints:
        config = small.config(checkpoint__keep=keep).checkpoint
        managers.append(checkpoint.Checkpoints(tmp_path, config, "top1"))
        return managers[-1]

    yield open_them
    for manager in managers:
        manager.close()


def save(checkpoints: checkpoint.Checkpoints, step: int, top1: float | None = None, **state) -> None:
    checkpoints.save(
        at(step, **state), step, {"train": float(step)}, None if top1 is None else {"top1": top1}
    )
    checkpoints.wait()


def test_what_is_saved_comes_back(opened):
    save(opened(), 3)
    state, clock = opened().restore(initial())
    assert small.equal(state, at(3))
    assert isinstance(state, states.TrainState) and int(state.step) == 3
    assert clock == {"train": 3.0}
    assert jax.tree.structure(state) == jax.tree.structure(initial())


def test_a_new_folder_has_nothing_to_restore(opened):
    assert opened().restore(initial()) is None


def test_the_newest_and_the_best_are_kept(opened):
    checkpoints = opened(keep=2)
    for step, top1 in enumerate([10.0, 50.0, None, 30.0, None, 20.0, None], start=1):
        save(checkpoints, step, top1)
    assert checkpoints.steps() == [2, 6, 7]


def test_a_resumed_run_knows_the_best(opened):
    first = opened(keep=1)
    for step, top1 in [(1, 50.0), (2, 10.0), (3, None)]:
        save(first, step, top1)
    first.close()
    second = opened(keep=1)
    save(second, 4, 20.0)
    save(second, 5)
    assert second.steps() == [1, 5]
    save(second, 6, 60.0)
    save(second, 7)
    assert second.steps() == [6, 7]


def test_saving_does_not_wait_for_the_next_step_nor_is_spoilt_by_it(opened):
    step = make_train_step(
        nnx.graphdef(small.Net()), small.loss, OPTIMIZER, seed=0, ema_decay=0.9, accumulate=1
    )
    step = jax.jit(step, donate_argnums=0)
    state, _ = step(initial(), small.batch(0))
    saved = jax.tree.map(np.array, state)
    checkpoints = opened()
    checkpoints.save(state, 1, {}, None)
    for number in range(1, 20):
        state, _ = step(state, small.batch(number))  # Reuses the memory of the state being written.
    checkpoints.wait()
    assert small.equal(opened().restore(initial())[0], saved)
    assert not small.equal(state.params, saved.params)


def empty_files(folder) -> None:
    for file in (folder / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")


def remove_data(folder) -> None:
    for data in (folder / "state").rglob("d"):
        shutil.rmtree(data)


def remove_state(folder) -> None:
    shutil.rmtree(folder / "state")


@pytest.mark.parametrize("damage", [empty_files, remove_data, remove_state])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_it_is_used(opened, tmp_path, caplog, damage):
    first = opened()
    save(first, 1)
    save(first, 2)
    damage(tmp_path / "checkpoints/2")
    second = opened()
    with caplog.at_level(logging.WARNING, logger="absl"):
        state, clock = second.restore(initial())
    assert small.equal(state, at(1)) and clock == {"train": 1.0}
    assert any("checkpoint 2 is damaged" in message for message in caplog.messages)
    assert second.steps() == [1, 2]  # It stays where it is.
    save(second, 2)  # The run comes to that step again.
    assert small.equal(opened().restore(initial())[0], at(2))


def test_nothing_but_damaged_checkpoints_is_an_error(opened, tmp_path):
    first = opened()
    save(first, 1)
    save(first, 2)
    for step in (1, 2):
        empty_files(tmp_path / f"checkpoints/{step}")
    with pytest.raises(
        UserError, match=r"all checkpoints in .* are damaged \(steps 1, 2\); nothing was changed"
    ):
        opened().restore(initial())
    assert opened().steps() == [1, 2]


def test_a_full_disk_is_an_error_before_anything_is_written(opened, monkeypatch):
    checkpoints = opened()
    save(checkpoints, 1)
    size = 300_000  # Of the files of a checkpoint with few bytes in its arrays.
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - size, size))
    with pytest.raises(UserError, match=r"0\.3 MB free and a checkpoint takes 0\.3 MB; make room"):
        save(checkpoints, 2)
    assert checkpoints.steps() == [1]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, 2 * size))
    save(checkpoints, 2)
    assert checkpoints.steps() == [1, 2]


def test_weights_are_read_without_a_template(opened, tmp_path):
    checkpoints = opened()
    save(checkpoints, 1)
    checkpoints.save(
        at(4)._replace(ema={"params": at(5).params, "batch_stats": at(6).batch_stats}), 4, {}, None
    )
    checkpoints.wait()
    step, params, stats = checkpoint.load_weights(tmp_path)
    assert step == 4
    assert small.equal((params, stats), (at(5).params, at(6).batch_stats))
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves((params, stats)))
    assert small.equal(
        checkpoint.load_weights(tmp_path, use_ema=False)[1:], (at(4).params, at(4).batch_stats)
    )
    assert checkpoint.saved_steps(tmp_path) == [1, 4]


def test_an_unfinished_checkpoint_is_none(opened, tmp_path):
    save(opened(), 2)
    (tmp_path / "checkpoints/4.orbax-checkpoint-tmp").mkdir()  # As a killed run leaves it.
    assert checkpoint.saved_steps(tmp_path) == opened().steps() == [2]


def test_without_averages_the_weights_are_read(opened, tmp_path):
    save(opened(), 2, use_ema=False)
    assert small.equal(checkpoint.load_weights(tmp_path), (2, at(2).params, at(2).batch_stats))


@pytest.fixture
def scored(opened, tmp_path):
    """A workdir with the checkpoints 1 to 5; 2 has the best score, 4 an equal one, 5 was not evaluated."""
    checkpoints = opened(keep=5)
    for step, score in enumerate((0.1, 0.9, 0.3, 0.9, None), 1):
        metrics = None if score is None else {"top1": score, "loss": -float(step)}
        checkpoints.save(at(step), step, {}, metrics)
        checkpoints.wait()
    return tmp_path


@pytest.mark.parametrize(
    ("which", "metric", "step"),
    [("last", "top1", 5), ("best", "top1", 4), ("best", "loss", 1), ("3", "top1", 3)],
)
def test_weights_of_a_chosen_checkpoint(scored, which, metric, step):
    found = checkpoint.load_weights(scored, use_ema=False, which=which, best_metric=metric)
    assert small.equal(found, (step, at(step).params, at(step).batch_stats))


@pytest.mark.parametrize("which", ["newest", "6", "-1", ""])
def test_a_checkpoint_that_is_not_there(scored, which):
    with pytest.raises(UserError, match=rf"'{which}'; expected last, best or a step in .*: 1, 2, 3, 4, 5$"):
        checkpoint.load_weights(scored, which=which)


def test_only_the_last_checkpoint_has_a_substitute(scored):
    for step in (4, 5):
        empty_files(scored / f"checkpoints/{step}")
    assert checkpoint.load_weights(scored)[0] == 3
    for which, step in {"best": 4, "5": 5}.items():
        with pytest.raises(
            UserError, match=rf"checkpoint {step} in .* is damaged .* of the steps 1, 2, 3, 4, 5$"
        ):
            checkpoint.load_weights(scored, which=which, best_metric="top1")


def test_no_checkpoint_is_known_to_be_the_best(scored):
    with pytest.raises(UserError, match=r"no checkpoint in .* was evaluated, .*: 1, 2, 3, 4, 5$"):
        checkpoint.load_weights(scored, which="best", best_metric="mIoU")
    (scored / "checkpoints/2/metrics/metrics").write_text("[1")
    with pytest.raises(UserError, match=r"the metrics of .*/2 cannot be read \(JSONDecodeError"):
        checkpoint.load_weights(scored, which="best", best_metric="top1")


def test_weights_that_cannot_be_read_are_an_error(opened, tmp_path):
    with pytest.raises(UserError, match="no checkpoint in"):
        checkpoint.load_weights(tmp_path)
    save(opened(), 1)
    empty_files(tmp_path / "checkpoints/1")
    with pytest.raises(UserError, match=r"all checkpoints in .* are damaged \(steps 1\)"):
        checkpoint.load_weights(tmp_path)
