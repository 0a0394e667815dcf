"""The training loop, for every task."""

import itertools
import pathlib
import time
from collections.abc import Callable

import jax
import optax
from absl import logging
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from seaformer_jax import mesh as meshes
from seaformer_jax.evaluation.evaluator import Evaluator
from seaformer_jax.tasks.base import Task
from seaformer_jax.training import optim, reporting
from seaformer_jax.training import state as states
from seaformer_jax.training.checkpoint import Checkpoints
from seaformer_jax.training.state import TrainState
from seaformer_jax.training.step import make_train_step
from seaformer_jax.training.stop import Stopped, StopRequest
from seaformer_jax.types import Batch


def train(config: ConfigDict, task: Task, model: nnx.Module, workdir: pathlib.Path) -> dict[str, float]:
    """Trains `model` to `config.total_steps`, going on from the newest checkpoint in `workdir`.

    Where it starts, in this order:
      1. the newest readable checkpoint of `workdir`;
      2. the weights that `model` has: those of `init_from`, or fresh ones.

    Every step is: log -> evaluate -> save -> next batch -> update. So a checkpoint holds all that came before its
    step and nothing after, and a run resumed from it repeats the one that did not stop, bit for bit.

    Returns:
        The last validation metrics; {} where the run was complete before.
    Raises:
        UserError: the loss is not finite, the disk is full, an image is corrupt.
        Stopped: after SIGTERM or Ctrl-C, when a checkpoint is written.
    """
    mesh = meshes.create_mesh()
    meshes.check_batch_size("batch_size", config.batch_size, config.optim.accumulate)
    meshes.check_batch_size("eval.batch_size", config.eval.batch_size)
    state, optimizer, schedule = _prepare(config, model, mesh)
    checkpoints = Checkpoints(workdir, config.checkpoint, task.best_metric)
    checkpoints.check_space(state)  # Now, and not when the first one is due.
    state, saved_clock = checkpoints.restore(state) or (state, None)
    start = int(state.step)
    saved = start if saved_clock is not None else -1
    if start >= config.total_steps:
        checkpoints.close()
        return {}
    if saved >= 0:
        logging.info("resuming at step %d of %d", start, config.total_steps)
    batches = task.train_batches(start)
    # The first one before compiling: data that cannot be read is an error now, and more is read meanwhile.
    upcoming = itertools.chain([next(batches)], batches)
    update = _compile(config, task, model, optimizer, state, mesh)

    reporter = reporting.Reporter(workdir, start)
    clock = reporting.Clock(saved_clock)
    window = reporting.Window(config.total_steps, config.batch_size, start, clock)
    evaluator = Evaluator(nnx.graphdef(model), task.eval_metrics, task.eval_batches, mesh)
    results, stop = {}, StopRequest()
    try:
        for step in range(start, config.total_steps + 1):
            evaluate, save = (
                step > start and _due(step, key.every, config) for key in (config.eval, config.checkpoint)
            )
            leave = stop.requested(step) or step == config.total_steps
            if window.steps and (save or leave or step % config.log_every == 0):
                values = {**window.close(step), "lr": float(schedule(step - 1))}
                logging.info("%s", reporting.progress_line(step, config.total_steps, values))
                reporter.scalars(step, {f"train/{name}": value for name, value in values.items()})
            if evaluate:
                results = task.summarize(evaluator(*states.weights(state, config.eval.use_ema)))
                logging.info("%s", reporting.results_line(step, results))
                reporter.scalars(step, {f"val/{name}": value for name, value in results.items()})
                clock.charge("evaluate")
            if save or (leave and step > saved):
                checkpoints.save(state, step, dict(clock.seconds), results if evaluate else None)
                saved = step
                clock.charge("checkpoint")
            if leave:
                break
            batch = next(upcoming)
            window.add_skipped(batch.pop("skipped"))
            clock.charge("data")
            state, metrics = update(state, meshes.put_batch(mesh, batch))
            window.add(metrics)
            clock.charge("train")
    finally:
        batches.close()
        checkpoints.close()
        reporter.close()
        stop.restore()
    if stop.signal and saved < config.total_steps:
        raise Stopped(stop.signal, saved)
    return results


def _due(step: int, every: int, config: ConfigDict) -> bool:
    return step == config.total_steps or (every > 0 and step % every == 0)


def _prepare(
    config: ConfigDict, model: nnx.Module, mesh: Mesh
) -> tuple[TrainState, optax.GradientTransformation, optax.Schedule]:
    """Returns the state before the first step, on the devices, the optimiser and the learning-rate schedule."""
    params, _ = states.split_model(model)
    reporting.log_parameters(params)
    optimizer, schedule = optim.create(config.optim, config.total_steps, params)
    state = states.create(model, optimizer, use_ema=config.optim.ema_decay > 0)
    return jax.device_put(state, meshes.replicated(mesh)), optimizer, schedule


def _compile(
    config: ConfigDict,
    task: Task,
    model: nnx.Module,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    mesh: Mesh,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """Returns the compiled training step, which donates its state, and logs what it costs."""
    step = make_train_step(
        nnx.graphdef(model),
        task.loss,
        optimizer,
        seed=config.seed,
        ema_decay=config.optim.ema_decay,
        accumulate=config.optim.accumulate,
    )
    whole, rows = meshes.replicated(mesh), meshes.batch_sharding(mesh)
    jitted = jax.jit(step, in_shardings=(whole, rows, whole), out_shardings=whole, donate_argnums=0)
    constants = jax.device_put(task.constants(), whole)
    began = time.monotonic()
    compiled = jitted.lower(state, task.example_batch(config.batch_size), constants).compile()
    reporting.log_compiled(compiled, time.monotonic() - began)
    return lambda state, batch: compiled(state, batch, constants)
