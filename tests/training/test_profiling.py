"""Traces of steps with `jax.profiler`."""

import contextlib
import pathlib

import jax
import jax.numpy as jnp
import pytest
from jax._src import profiler
from ml_collections import ConfigDict

from seaformer_jax.training import profiling
from tests.training.small import steps_traced


@jax.jit
def update(state, batch):
    return state + batch, {"loss": state.sum()}


def run(folder: pathlib.Path, calls: int, skip: int, steps: int, start: int = 0):
    """Calls the traced step so many times; returns the last state."""
    state = jnp.zeros(3)
    with profiling.traced(update, ConfigDict({"skip": skip, "steps": steps}), folder, start) as step:
        for _ in range(calls):
            state, _ = step(state, jnp.ones(3))
    return state


@pytest.fixture
def log(caplog):
    with caplog.at_level("INFO", logger="absl"):
        yield caplog


def test_the_steps_that_the_config_chooses_are_traced(tmp_path, log):
    assert run(tmp_path, calls=4, skip=1, steps=2, start=5).tolist() == [4, 4, 4]
    assert steps_traced(tmp_path) == [7, 8]
    assert log.messages == [f"the trace from step 7 on is in {tmp_path}"]


def test_a_run_that_ends_sooner_leaves_the_trace_of_its_steps(tmp_path):
    run(tmp_path, calls=2, skip=1, steps=5)
    assert steps_traced(tmp_path) == [2]


def test_an_error_leaves_the_trace_of_the_steps_before_it(tmp_path):
    config = ConfigDict({"skip": 0, "steps": 2})
    with contextlib.suppress(ZeroDivisionError), profiling.traced(update, config, tmp_path, 0) as step:
        step(jnp.zeros(3), jnp.ones(3))
        raise ZeroDivisionError
    assert steps_traced(tmp_path) == [1]


def test_a_run_that_ends_before_its_trace_warns(tmp_path, log):
    run(tmp_path, calls=2, skip=2, steps=1, start=5)
    assert log.messages == ["no step was traced: the run ended before its step 8"]
    assert not list(tmp_path.iterdir())


def test_without_steps_to_trace_the_step_is_left_alone(tmp_path):
    with profiling.traced(update, ConfigDict({"skip": 0, "steps": 0}), tmp_path, 0) as step:
        assert step is update


def test_only_the_first_process_traces(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with profiling.traced(update, ConfigDict({"skip": 0, "steps": 1}), tmp_path, 0) as step:
        assert step is update


def test_the_device_is_awaited_before_a_trace_begins_and_before_it_ends(tmp_path, monkeypatch):
    events = []
    monkeypatch.setattr(jax, "block_until_ready", events.append)
    monkeypatch.setattr(jax.profiler, "start_trace", lambda *_, **__: events.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: events.append("stop"))
    config = ConfigDict({"skip": 0, "steps": 2})
    with profiling.traced(lambda state, _: (state, f"metrics {state}"), config, tmp_path, 0) as step:
        for state in ("one", "two", "three"):
            step(state, None)
    assert events == ["one", "start", "metrics two", "stop"]


def test_a_trace_that_cannot_be_written_ends_no_run(tmp_path, log):
    (tmp_path / "file").write_text("")
    try:
        state = run(tmp_path / "file/profile", calls=3, skip=0, steps=1)
    finally:
        profiler._profile_state.reset()  # JAX keeps a session that failed.
    assert state.tolist() == [3, 3, 3]
    (line,) = log.messages
    assert line.startswith(f"the trace could not be written to {tmp_path}/file/profile: ")
