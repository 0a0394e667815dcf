"""Leaving a run in good order on SIGTERM or Ctrl-C."""

import signal

import jax
from jax.experimental import multihost_utils


class Stopped(Exception):
    """The run was asked to stop, and did so with a checkpoint on disk."""

    def __init__(self, signal_number: int, step: int):
        super().__init__(f"stopped by {signal.Signals(signal_number).name} with a checkpoint at step {step}")
        self.exit_status = 128 + signal_number  # as shells report it


class StopRequest:
    """Notes SIGTERM and the first Ctrl-C; a second Ctrl-C interrupts at once.

    With several processes they must agree on the step to stop at. JAX's coordination service does that for the
    SIGTERM that clusters send before they take a machine back, so this leaves SIGTERM to it and turns Ctrl-C
    into one.
    """

    def __init__(self):
        self.signal, self._interrupted = None, False
        self._together = jax.process_count() > 1
        watched = (signal.SIGINT,) if self._together else (signal.SIGINT, signal.SIGTERM)
        self._previous = {number: signal.signal(number, self._note) for number in watched}

    def _note(self, number: int, frame) -> None:
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = number == signal.SIGINT
        if self._together:
            signal.raise_signal(signal.SIGTERM)
        else:
            self.signal = number

    def requested(self, step: int) -> bool:
        """Whether to stop before step `step` + 1; to be asked at every step by every process."""
        if self._together and multihost_utils.reached_preemption_sync_point(step):
            self.signal = signal.SIGTERM
        return self.signal is not None

    def restore(self) -> None:
        """Puts the previous handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
