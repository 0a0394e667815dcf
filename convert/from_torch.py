"""Turns weights with the official PyTorch names into a workdir, for train, evaluate, predict and init_from.

python -m convert.from_torch --checkpoint seaformer_tiny.pth --config configs/imagenet.py:tiny --workdir runs/official
"""

from absl import logging
from etils import epath
from ml_collections import ConfigDict

from convert.checkpoints import starting_weights
from seaformer_jax import command, paths
from seaformer_jax.errors import UserError
from seaformer_jax.models.variables import split_model
from seaformer_jax.training import optim, state, workdir
from seaformer_jax.training.checkpoint import Checkpoints, saved_steps
from seaformer_jax.training.trained import Trained

_CONFIG = command.define_config()
_CHECKPOINT = command.define_path(
    "checkpoint",
    "File of weights with the official names: .pth, .pth.tar, .pt or .safetensors.",
    required=True,
)
_WORKDIR = command.define_path("workdir", "Folder to create: a run at step 0.", required=True)


def main() -> int:
    """Loads the weights, checks that they fit the config, and writes the workdir."""
    folder = paths.of(_WORKDIR.value)
    # Refuse before loading: a trained run must not be overwritten.
    if steps := saved_steps(folder):
        raise UserError(f"--workdir {folder} holds a run with checkpoints of steps {steps}; choose another")
    loaded = starting_weights.load(paths.of(_CHECKPOINT.value), _CONFIG.value)
    config = loaded.config  # The one that was loaded: a student's has the width of its teacher filled in.
    workdir.prepare_workdir(folder, config, loaded.class_names)
    _save(loaded, config, folder)
    logging.info("%s: %s, %d classes", folder, config.model.name, len(loaded.class_names))
    logging.info("python -m seaformer_jax.predict --workdir %s --images 'photos/*.jpg' --out DIR", folder)
    return 0


def _save(loaded: Trained, config: ConfigDict, folder: epath.Path) -> None:
    """Writes the checkpoint that a run of `config` has before its first step, so that `train` can continue."""
    params, _ = split_model(loaded.model)
    optimizer, _ = optim.create(config.optim, config.total_steps, params)
    checkpoints = Checkpoints(folder, config.checkpoint, loaded.task.best_metric)
    start = state.create(loaded.model, optimizer, use_ema=config.optim.ema_decay > 0)
    checkpoints.save(start, 0, clock={}, metrics=None)
    checkpoints.close()


if __name__ == "__main__":
    command.run(main)
