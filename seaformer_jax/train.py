"""Trains a model; the same command resumes a stopped run.

python -m seaformer_jax.train --config configs/imagenet.py:tiny --workdir runs/tiny [--config.key=value ...]
"""

import shlex

from absl import logging
from etils import epath

from seaformer_jax import command, paths, processes, tasks
from seaformer_jax.errors import DivergedError, UserError
from seaformer_jax.training import checkpoint, lock, loop, reporting, stop, workdir

_CONFIG = command.define_config()
_WORKDIR = command.define_path(
    "workdir", "Folder of the run, for its checkpoints, metrics and config.", required=True
)


def main() -> int:
    """Trains as the flags say; returns the exit status."""
    # 1. JAX. The hosts have to connect before JAX uses a device.
    config, folder = _CONFIG.value, paths.of(_WORKDIR.value)
    processes.connect(config.distributed)
    command.setup_jax(config)

    # 2. The data. Opening it here reports wrong data now and not after minutes of compilation.
    task = tasks.create(config)
    for batches in (task.train_batches(0), task.eval_batches()):
        batches.close()

    # 3. The model and its starting weights. A run with checkpoints resumes from those instead. `convert` is imported
    #    here, because only commands may import it, and PyTorch may not be installed.
    if "teacher" in config:
        from convert.checkpoints import teacher

        task = task.with_teacher(teacher.load(config, task.class_names))
        config = task.config
    model = task.create_model()
    if config.init_from and not checkpoint.saved_steps(folder):
        from convert.checkpoints import starting_weights

        starting_weights.load_into(model, config.init_from)

    # 4. The training. No other run may write into the workdir meanwhile.
    try:
        with lock.held(folder):
            workdir.prepare_workdir(folder, config, task.class_names)
            results = loop.train(config, task, model, folder)
    except stop.Stopped as stopped:
        logging.info("%s; run the same command to resume", stopped)
        return stopped.exit_status
    except DivergedError as error:
        raise UserError(f"{error}. {_way_on(config.optim.lr / 2, folder)}") from error
    if results:
        logging.info("done: %s", reporting.results_line(config.total_steps, results))
    else:
        logging.info("%s is complete: %d steps; nothing to do", folder, config.total_steps)
    return 0


def _way_on(lr: float, folder: epath.Path) -> str:
    """Returns what to do with a run in `folder` that diverged: train again with the lower learning rate `lr`."""
    lower = (
        f"--config.optim.lr={lr:.2g}; or lengthen optim.schedule.warmup_steps, or set optim.clip_norm to 1"
    )
    if not checkpoint.saved_steps(folder):
        return f"Run the same command with {lower}"
    # Its config is locked, so that the checkpoints in a folder are all of one config.
    path = shlex.quote(str(folder))
    return f"Start from its last checkpoint in a new folder: --workdir={path}_2 --config.init_from={path} {lower}"


if __name__ == "__main__":
    command.run(main)
