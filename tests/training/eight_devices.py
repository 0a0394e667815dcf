"""Trains the nano model on 1 and on 8 devices of one process; prints how far apart the two end up, as JSON.

python -m tests.training.eight_devices FOLDER CACHE   (test_parallel.py)
"""

import json
import pathlib
import sys

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from seaformer_jax import command, tasks
from seaformer_jax import mesh as meshes
from seaformer_jax.evaluation.evaluator import Evaluator
from seaformer_jax.training import checkpoint, loop
from seaformer_jax.training import state as states
from tests.training import nano, small

STEPS = 20
VARIANTS = {
    "plain": {"augment__cutmix": 1.0, "augment__mix_group": 16},
    "accumulate": {"optim__accumulate": 2},
    "bn_groups": {"model__bn_groups": 8},
}


def record(**changes):
    config = nano.get_config()
    changes = {"batch_size": 32, "eval__every": 0, "eval__batch_size": 32, "total_steps": STEPS} | changes
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return config


def train(config, mesh: Mesh, folder: pathlib.Path):
    """Returns ((parameters, statistics), losses) after STEPS steps on the devices of `mesh`."""
    meshes.create_mesh = lambda: mesh
    task = tasks.create(config)
    folder.mkdir()
    loop.train(config, task, task.create_model(), folder)
    losses = np.array(list(small.curve(folder, "train/loss").values()))
    return checkpoint.load_weights(folder, use_ema=False)[1:], losses


def evaluate(config, mesh: Mesh, folder: pathlib.Path) -> dict:
    task = tasks.create(config)
    evaluator = Evaluator(nnx.graphdef(task.create_model()), task.count, task.eval_batches, mesh)
    return evaluator(*checkpoint.load_weights(folder)[1:])


def main(folder: pathlib.Path, cache: str) -> dict:
    one, eight = Mesh(np.array(jax.devices()[:1]), ("data",)), meshes.create_mesh()
    report = {"devices": [one.size, eight.size]}
    for name, changes in VARIANTS.items():
        config = record(compilation_cache=cache, **changes)
        command.setup_jax(config)
        weights, losses = train(config, one, folder / f"{name}-1")
        others, other_losses = train(config, eight, folder / f"{name}-8")
        fresh = states.split_model(tasks.create(config).create_model())
        report[name] = {
            "weights": small.distance(weights, others),
            "loss": float(np.abs(losses - other_losses).max()),
            "moved": small.distance(weights, fresh),
            "steps": len(losses),
        }
    (first, *rest) = (
        evaluate(record(compilation_cache=cache, eval__batch_size=size), mesh, folder / "plain-8")
        for size, mesh in ((32, one), (8, eight), (32, eight))
    )
    report["counts_equal"] = all(small.equal({**first, "loss": 0}, {**other, "loss": 0}) for other in rest)
    report["eval_loss"] = max(abs(first["loss"].compute() - other["loss"].compute()) for other in rest)
    return report


if __name__ == "__main__":
    print(json.dumps(main(pathlib.Path(sys.argv[1]), sys.argv[2])))
