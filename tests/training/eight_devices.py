"""Trains the nano model on 1 and on 8 devices of one process; prints how far apart the two end up, as JSON.

python -m tests.training.eight_devices FOLDER   (test_parallel.py)
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
    changes = {"batch_size": 32, "eval__batch_size": 32, "total_steps": STEPS} | changes
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return config


def train(config, mesh: Mesh) -> tuple[states.TrainState, list[float]]:
    task = tasks.create(config)
    state, update, _ = loop._prepare(config, task, task.create_model(), mesh)
    batches, losses = task.train_batches(0), []
    for _ in range(STEPS):
        batch = next(batches)
        del batch["skipped"]
        state, metrics = update(state, meshes.put_batch(mesh, batch))
        losses.append(float(metrics["loss"]))
    batches.close()
    return state, losses


def evaluate(config, mesh: Mesh, state: states.TrainState) -> dict:
    task = tasks.create(config)
    evaluator = Evaluator(nnx.graphdef(task.create_model()), task.count, task.eval_batches, mesh)
    weights = jax.device_put(states.weights(state, use_ema=True), meshes.replicated(mesh))
    return evaluator(*weights)


def main(folder: pathlib.Path, cache: str) -> dict:
    meshes_ = [Mesh(np.array(jax.devices()[:1]), ("data",)), meshes.create_mesh()]
    report = {"devices": [mesh.size for mesh in meshes_]}
    for name, changes in VARIANTS.items():
        config = record(compilation_cache=cache, **changes)
        command.setup_jax(config)
        (one, losses), (eight, others) = (train(config, mesh) for mesh in meshes_)
        report[name] = {
            "state": small.distance(one, eight),
            "loss": float(np.abs(np.subtract(losses, others)).max()),
            "moved": small.distance(one.params, states.split_model(tasks.create(config).create_model())[0]),
        }
    (first, *rest) = (
        evaluate(record(compilation_cache=cache, eval__batch_size=size), mesh, one)
        for size, mesh in ((32, meshes_[0]), (8, meshes_[1]), (32, meshes_[1]))
    )
    report["counts_equal"] = all(small.equal({**first, "loss": 0}, {**other, "loss": 0}) for other in rest)
    report["eval_loss"] = max(abs(first["loss"].compute() - other["loss"].compute()) for other in rest)
    checkpoints = checkpoint.Checkpoints(folder, config.checkpoint, "top1")
    checkpoints.save(eight, STEPS, {"train": 1.0}, None)
    checkpoints.close()
    np.savez(folder / "state.npz", *jax.tree.leaves(eight))
    return report


if __name__ == "__main__":
    print(json.dumps(main(pathlib.Path(sys.argv[1]), sys.argv[2])))
