"""Stops a run with a checkpoint on SIGTERM or Ctrl-C."""

import signal

import jax
from jax.experimental import multihost_utils


class Stopped(Exception):
    """The run was asked to stop; it stopped after writing a checkpoint."""

    def __init__(self, signal_number: int, step: int):
        super().__init__(f"stopped by {signal.Signals(signal_number).name} with a checkpoint at step {step}")
        self.exit_status = 128 + signal_number  # The status that shells report for this signal.


class StopRequest:
    """Records SIGTERM and the first Ctrl-C inside its `with` block; a second Ctrl-C interrupts at once.

    Several processes must agree on the step to stop at. JAX's coordination service does that for the SIGTERM that
    clusters send before they take a machine back. With several processes, this class therefore leaves SIGTERM to
    the service and turns Ctrl-C into a SIGTERM.
    """

    def __init__(self):
        self.signal, self._interrupted = None, False
        self._together = jax.process_count() > 1
        self._previous = {}

    def __enter__(self) -> "StopRequest":
        watched = (signal.SIGINT,) if self._together else (signal.SIGINT, signal.SIGTERM)
        self._previous = {number: signal.signal(number, self._note) for number in watched}
        return self

    def __exit__(self, *exception: object) -> None:
        """Puts the previous signal handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame) -> None:
        if self._interrupted:
            raise KeyboardInterrupt
        # A SIGTERM is not counted, so that a Ctrl-C after it is the first one.
        self._interrupted = number == signal.SIGINT
        if self._together:
            signal.raise_signal(signal.SIGTERM)
        else:
            self.signal = number

    def requested(self, step: int) -> bool:
        """Returns whether to stop before step `step` + 1. Every process must call it at every step."""
        if self._together and multihost_utils.reached_preemption_sync_point(step):
            self.signal = signal.SIGTERM
        return self.signal is not None
