"""The training loop. It is the same for every task."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import jax
import optax
from absl import logging
from etils import epath
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from seaformer_jax import mesh as meshes
from seaformer_jax.errors import DivergedError
from seaformer_jax.evaluation.evaluator import Evaluator
from seaformer_jax.tasks.base import Task
from seaformer_jax.training import program, reporting
from seaformer_jax.training import state as states
from seaformer_jax.training.advice import advice
from seaformer_jax.training.checkpoint import Checkpoints
from seaformer_jax.training.prefetch import Prefetched
from seaformer_jax.training.profiling import traced
from seaformer_jax.training.scalars import Reporter
from seaformer_jax.training.state import TrainState
from seaformer_jax.training.stop import Stopped, StopRequest
from seaformer_jax.types import Batch


def train(config: ConfigDict, task: Task, model: nnx.Module, workdir: epath.Path) -> dict[str, float]:
    """Trains `model` up to step `config.total_steps`, or resumes from the newest checkpoint in `workdir`.

    A run starts from the first of these that exists:

    1. the newest readable checkpoint in `workdir`;
    2. the weights of `model`: those of `init_from`, or fresh ones.

    Each turn of the loop is log -> evaluate -> save -> step -> next batch. A checkpoint therefore contains everything
    up to its step and nothing after it. A resumed run repeats the uninterrupted one bit for bit.

    Args:
        config: The whole config.
        task: Supplies data, loss and metrics.
        model: Model of `task` with the initial weights. It cannot be used afterwards, because the steps reuse the
            memory of its arrays. The trained weights are in the checkpoints only.
        workdir: Work directory for checkpoints and metrics.
    Returns:
        The last validation metrics; {} if the run was already complete.
    Raises:
        DivergedError: The loss, a gradient or a parameter is not finite.
        UserError: The disk is full, an image is corrupt, or a data worker was killed.
        Stopped: After SIGTERM or Ctrl-C, once a checkpoint is written.
    """
    # 1. Mesh and batch size: all devices of all hosts form one axis, and each must get the same number of images.
    mesh = _create_mesh(config, task.heights())

    # 2. State before the first step. Resuming needs it as well: it says what shapes and dtypes to restore.
    state, optimizer, schedule = _prepare(config, model, mesh)

    # What is opened from here on is closed in reverse order, after an error too. The signals come first, because
    # another SIGTERM must not end the process while the last checkpoint is written.
    with contextlib.ExitStack() as opened:
        stop = opened.enter_context(StopRequest())

        # 3. Checkpoint: a full disk is an error now, not when the first checkpoint is due. `saved` is the step of the
        #    newest checkpoint of this run, -1 for none.
        checkpoints = opened.enter_context(closing(Checkpoints(workdir, config.checkpoint, task.best_metric)))
        checkpoints.check_space(state)
        state, saved_clock = checkpoints.restore(state) or (state, None)
        start = int(state.step)
        saved = start if saved_clock is not None else -1
        # An evaluation that failed, e.g. because of a corrupt image, is repeated.
        missed = start > 0 and _due(start, config.eval.every, config) and not checkpoints.was_evaluated(start)
        if start >= config.total_steps and not missed:
            return {}
        if saved >= 0:
            logging.info("resuming at step %d of %d", start, config.total_steps)
        # A damaged metrics.jsonl is an error before anything is compiled.
        reporter = opened.enter_context(closing(Reporter(workdir, start)))

        # 4. Training data. The first batch is read before compiling: unreadable data is an error now, and the workers
        #    read ahead while the step compiles. Batch t depends only on the seed and t, so `start` is the whole
        #    position.
        upcoming = Prefetched(opened.enter_context(closing(task.train_batches(start))), mesh)

        # 5. Compiled step. Compiling ahead of the loop keeps its time out of the first progress line.
        update = _compile(config, task, model, optimizer, state, mesh)
        update = opened.enter_context(traced(update, config.profile, workdir / "profile", start))

        # 6. Clock and evaluation. The clock goes on from the checkpoint, so that its sums are those of the whole run.
        clock = reporting.Clock(saved_clock)
        window = reporting.Window(config.total_steps, config.batch_size, start, clock)
        evaluator = Evaluator(nnx.graphdef(model), task.eval_metrics, task.eval_batches, mesh)
        results = {}

        # 7. The loop. At its head, `step` updates are done. It therefore turns once more after the last update, to
        #    log, evaluate and save.
        for step in range(start, config.total_steps + 1):
            # Nothing else is due at `start`: a fresh run has nothing to report, a resumed one did it before it saved.
            evaluate = (step > start or missed) and _due(step, config.eval.every, config)
            save = step > start and _due(step, config.checkpoint.every, config)
            # Asked at every step by every process, because several processes must agree on the step to stop at.
            leave = stop.requested(step) or step == config.total_steps

            # 7.1 Log, always before saving: closing the window raises an error if a loss or a gradient was not
            #     finite, so no checkpoint holds spoilt parameters. Closing also waits for the device. Logging comes
            #     before evaluation so that this wait counts as training time. The schedule counts updates from 0, so
            #     the last one had the rate of `step - 1`.
            if window.steps and (save or leave or step % config.log_every == 0):
                values = {**window.close(step), "lr": float(schedule(step - 1))}
                _log(values, step, config.total_steps, reporter)

            # 7.2 Evaluate, before saving: the checkpoint holds the metrics, by which the best checkpoint is kept. The
            #     averaged weights lag behind the last ones, so the score of these is logged too.
            if evaluate:
                with _saving_first(checkpoints, state, step, saved, clock, None):
                    scores = _evaluate(evaluator, task, state, config.eval.use_ema)
                reporter.results(step, scores)
                results = scores["val"]
                clock.charge("evaluate")
                _check_results(results, task.best_metric, step)

            # 7.3 Save, after everything that belongs to this step and before the next batch is taken. A run that
            #     leaves saves too, unless its newest checkpoint is already of this step.
            if save or (leave and step > saved):
                reporter.sync()
                _save(checkpoints, state, step, clock, results if evaluate else None)
                saved = step
                clock.charge("checkpoint")
            if leave:
                break

            # 7.4 Batch number `step`, which is also the first one of a run that resumes from step `step`. It was sent
            #     to the devices in the turn before; an error in its data ends the run here.
            with _saving_first(checkpoints, state, step, saved, clock, results if evaluate else None):
                batch, skipped = upcoming.take()
            window.add_skipped(skipped)

            # 7.5 Step, and the next batch: the call returns before the step is done, so that the batch is read and
            #     sent to the devices meanwhile. The metrics stay on the device until the window is closed. The old
            #     state is donated: its memory is reused.
            state, metrics = update(state, batch)
            window.add(metrics)
            clock.charge("train")
            if step + 1 < config.total_steps:
                upcoming.fetch()
            clock.charge("data")
    # A signal during the last step changes nothing: the run is complete.
    if stop.signal and saved < config.total_steps:
        raise Stopped(stop.signal, saved)
    return results


def _create_mesh(config: ConfigDict, heights: Sequence[int]) -> Mesh:
    """Returns the mesh of all devices, once the batch is known to divide among them; warns if it suits them badly."""
    mesh, microbatches = meshes.create_mesh(), config.optim.accumulate
    meshes.check_batch_size(mesh, config.batch_size, microbatches)
    images = config.batch_size // microbatches
    platform = mesh.devices.flat[0].platform
    for line in advice(platform, mesh.size, images, heights, config.model.bn_groups):
        logging.warning("%s", line)
    return mesh


def _log(values: dict[str, float], step: int, total_steps: int, reporter: Reporter) -> None:
    """Logs the progress line of `step` and writes its values."""
    logging.info("%s", reporting.progress_line(step, total_steps, values))
    reporter.scalars(step, {f"train/{name}": value for name, value in values.items()})


def _evaluate(
    evaluator: Evaluator, task: Task, state: TrainState, use_ema: bool
) -> dict[str, dict[str, float]]:
    """Returns {"val": metrics}; if these are the averaged weights', those of the last weights, too, as "val_last"."""
    evaluated = {"val": states.weights(state, use_ema)}
    if use_ema and state.ema:
        evaluated["val_last"] = states.weights(state, use_ema=False)
    return {name: task.summarize(evaluator(*weights)) for name, weights in evaluated.items()}


def _check_results(results: dict[str, float], best_metric: str, step: int) -> None:
    """Raises DivergedError if the validation loss or the metric that chooses the best checkpoint is not finite."""
    for name in {"loss", best_metric} & results.keys():
        if not math.isfinite(results[name]):
            raise DivergedError(
                f"the validation {name} is {results[name]} at step {step}; no checkpoint of that step was saved; "
                "check the validation split"
            )


def _save(
    checkpoints: Checkpoints,
    state: TrainState,
    step: int,
    clock: reporting.Clock,
    results: dict[str, float] | None,
) -> None:
    """Saves a checkpoint; raises DivergedError if the state is not finite: it must not become the newest one."""
    if not states.is_finite(state):
        raise DivergedError(
            f"the parameters are not finite after step {step}; no checkpoint of that step was saved"
        )
    checkpoints.save(state, step, dict(clock.seconds), results)


@contextlib.contextmanager
def _saving_first(
    checkpoints: Checkpoints,
    state: TrainState,
    step: int,
    saved: int,
    clock: reporting.Clock,
    results: dict[str, float] | None,
) -> Iterator[None]:
    """Saves a checkpoint if the data of a step or of the evaluation fails, and then raises the error.

    The state is good, only the data failed: a run that is started again goes on from here. Several processes can only
    save together, and the others do not know of the error.
    """
    try:
        yield
    except Exception:
        if step > max(saved, 0) and jax.process_count() == 1:
            _save(checkpoints, state, step, clock, results)
            logging.info("step %d is saved before the error below ends the run", step)
        raise


def _due(step: int, every: int, config: ConfigDict) -> bool:
    """Returns whether something that happens every `every` steps is due; 0 means only after the last step."""
    return step == config.total_steps or (every > 0 and step % every == 0)


def _prepare(config: ConfigDict, model: nnx.Module, mesh: Mesh) -> program.Start:
    """Returns the start of a run, with the state on the devices."""
    start = program.prepare(config, model)
    reporting.log_parameters(start.state.params)
    # Every device has the whole state: only the batch is divided.
    return start._replace(state=jax.device_put(start.state, meshes.replicated(mesh)))


def _compile(
    config: ConfigDict,
    task: Task,
    model: nnx.Module,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    mesh: Mesh,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """Compiles the training step, once for each shape of a batch, and logs what it costs.

    Returns:
        `update(state, batch) -> (state, metrics)`. It donates `state`, which must not be used afterwards.
    """
    # Constants are arguments of the step, put on the devices once; closed over, they would be part of the program.
    constants = jax.device_put(task.constants(), meshes.replicated(mesh))
    compiled = {}
    for batch in task.example_batches(config.batch_size):
        began = time.monotonic()
        lowered = program.lower_step(config, task, model, optimizer, state, constants, mesh, batch)
        compiled[_shapes(batch)] = lowered.compile()
        reporting.log_compiled(compiled[_shapes(batch)], time.monotonic() - began)
    return lambda state, batch: compiled[_shapes(batch)](state, batch, constants)


def _shapes(batch: Batch) -> tuple[tuple[int, ...], ...]:
    return tuple(batch[name].shape for name in sorted(batch))
