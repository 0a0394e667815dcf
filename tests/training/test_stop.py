"""Stop requests by signal."""

import signal

import jax
import pytest
from jax.experimental import multihost_utils

from seaformer_jax.training import stop


@pytest.fixture
def request_():
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with stop.StopRequest() as made:
        yield made
    assert {number: signal.getsignal(number) for number in handlers} == handlers


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted(request_, number):
    assert not request_.requested(1)
    signal.raise_signal(number)
    assert request_.requested(2) and request_.requested(3)
    assert request_.signal == number


def test_a_second_interrupt_interrupts_at_once(request_):
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_an_interrupt_after_a_termination_is_not_the_second_one(request_):
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)
    assert request_.requested(1)


def test_several_processes_leave_the_step_to_their_coordinator(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", lambda step: step >= 5)
    terminated = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: terminated.append(number))
    try:
        with stop.StopRequest() as request:
            signal.raise_signal(
                signal.SIGINT
            )  # Told to the coordinator, as SIGTERM; the others come to know.
            assert terminated == [signal.SIGTERM]
            assert not request.requested(4)
            assert request.requested(5)
        assert request.signal == signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)


def test_exit_statuses_are_those_of_shells():
    assert stop.Stopped(signal.SIGTERM, 7).exit_status == 143
    assert stop.Stopped(signal.SIGINT, 7).exit_status == 130
    assert str(stop.Stopped(signal.SIGINT, 7)) == "stopped by SIGINT with a checkpoint at step 7"
