"""Traces some steps of a run with `jax.profiler`, for XProf, TensorBoard and `experiments/profile_table.py`."""

import contextlib
import itertools
from collections.abc import Callable, Iterator

import jax
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from seaformer_jax.paths import Spool
from seaformer_jax.training.state import TrainState
from seaformer_jax.types import Batch

Update = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


@contextlib.contextmanager
def traced(update: Update, config: ConfigDict, folder: epath.Path, start: int) -> Iterator[Update]:
    """Gives the training step, which traces the calls that `config` chooses; closing ends a trace that still runs.

    A trace begins and ends when the device has nothing left to do, so that it holds these steps as a whole. Only the
    first process traces: the others run the same program.

    Args:
        update: The training step, `update(state, batch) -> (state, metrics)`.
        config: The section `profile` of the config.
        folder: Folder for the traces; each has a folder of its own below it, named after the time.
        start: Number of steps that are done.
    """
    calls, trace = itertools.count(), contextlib.ExitStack()

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        call = next(calls)
        if call == config.skip:
            jax.block_until_ready(state)
            trace.enter_context(_trace(folder, start + call + 1))
        # The viewers group what happens by these numbers, which are those of the progress lines.
        with jax.profiler.StepTraceAnnotation("train", step_num=start + call + 1):
            state, metrics = update(state, batch)
        if call + 1 == config.skip + config.steps:
            jax.block_until_ready(metrics)
            trace.close()
        return state, metrics

    if not config.steps or jax.process_index() > 0:
        yield update
        return
    with trace:
        yield step
    if next(calls) <= config.skip:
        logging.warning("no step was traced: the run ended before its step %d", start + config.skip + 1)


@contextlib.contextmanager
def _trace(folder: epath.Path, first: int) -> Iterator[None]:
    """Traces what happens inside the `with` block; `first` is the number of the first step, for the log."""
    options = jax.profiler.ProfileOptions()
    # One event per Python call would hide the device's work, and slow the step.
    options.python_tracer_level = 0
    spool = Spool(folder)
    jax.profiler.start_trace(spool.folder, profiler_options=options)
    try:
        yield
    finally:
        try:
            jax.profiler.stop_trace()
            spool.close()
            logging.info("the trace from step %d on is in %s", first, folder)
        except (jax.errors.JaxRuntimeError, OSError) as error:
            # A full disk, mostly. The run does not depend on its trace.
            logging.warning("the trace could not be written to %s: %s", folder, error)
