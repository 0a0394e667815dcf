"""Trains a small model on 1 and on 8 devices of one process; prints how far apart the two end up, as JSON.

python -m tests.training.eight_devices VARIANT FOLDER CACHE   (test_parallel.py)
"""

import json
import pathlib
import sys

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from seaformer_jax import command, tasks
from seaformer_jax import mesh as meshes
from seaformer_jax.evaluation.evaluator import Evaluator
from seaformer_jax.metrics import PerImage
from seaformer_jax.models.variables import split_model
from seaformer_jax.tasks.base import Task
from seaformer_jax.training import checkpoint, loop
from tests.training import distilled, nano, small

STEPS = 20
VARIANTS = ("grouped", "mixed", "segmentation", "detection", "distilled")


def create(variant: str, **changes) -> Task:
    """The task of a variant: mixed images, microbatches of BatchNorm groups, other tasks, a taught student."""
    of_task = {"segmentation": nano.get_segmentation_config, "detection": nano.get_detection_config}
    config = of_task.get(variant, nano.get_config)()
    changes |= {"batch_size": 32, "total_steps": STEPS, "eval__every": 0, "checkpoint__every": 0}
    if variant == "mixed":
        changes |= {"augment__cutmix": 1.0, "augment__mix_group": 16}
    if variant == "detection":
        # Small steps: the gradient of the L1 loss is a sign, and rounding can turn it.
        changes |= {"optim__lr": 1e-4}
    if variant == "grouped":
        changes |= {"optim__accumulate": 2, "model__bn_groups": 8}
    if variant == "distilled":
        return distilled.make_task(
            "segmentation", distillation__feature_weight=0.01, **changes
        )  # A loss near 1.
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return small.StandIn(config) if variant == "grouped" else tasks.create(config)


def train(variant: str, mesh: Mesh, folder: pathlib.Path):
    """Returns ((parameters, statistics), losses) after STEPS steps on the devices of `mesh`."""
    meshes.create_mesh = lambda: mesh
    task = create(variant)
    folder.mkdir()
    loop.train(task.config, task, task.create_model(), folder)
    losses = np.array(list(small.curve(folder, "train/loss").values()))
    return checkpoint.load_weights(folder, use_ema=False)[1:], losses


def evaluate(variant: str, batch_size: int, mesh: Mesh, folder: pathlib.Path) -> dict:
    task = create(variant, eval__batch_size=batch_size)
    evaluator = Evaluator(nnx.graphdef(task.create_model()), task.eval_metrics, task.eval_batches, mesh)
    return evaluator(*checkpoint.load_weights(folder)[1:])


def _difference(one: PerImage, other: PerImage) -> float:
    """Returns the largest difference of two scores or boxes of the same rank in the same image."""
    tables = []
    for found in (one.of_images(), other.of_images()):
        order = np.argsort(found["index"])
        tables.append({name: values[order] for name, values in found.items()})
    assert tables[0]["index"].tolist() == tables[1]["index"].tolist()
    return max(float(np.abs(tables[0][name] - tables[1][name]).max()) for name in ("scores", "boxes"))


def main(variant: str, folder: pathlib.Path, cache: str) -> dict:
    one, eight = Mesh(np.array(jax.devices()[:1]), ("data",)), meshes.create_mesh()
    command.setup_jax(ConfigDict({"compilation_cache": cache}))
    weights, losses = train(variant, one, folder / f"{variant}-1")
    others, other_losses = train(variant, eight, folder / f"{variant}-8")
    fresh = split_model(create(variant).create_model())
    report = {
        "devices": [one.size, eight.size],
        "weights": small.distance(weights, others),
        "loss": float(np.abs(losses - other_losses).max()),
        "moved": small.distance(weights, fresh),
        "steps": len(losses),
    }
    # The stand-in has more images in larger batches.
    ways = ((32, one), (32, eight)) if variant == "grouped" else ((32, one), (12, eight), (32, eight))
    (first, *rest) = (evaluate(variant, *way, folder / f"{variant}-8") for way in ways)
    if "detections" in first:
        report["detections"] = max(_difference(first["detections"], other["detections"]) for other in rest)
        return report
    report["counts_equal"] = all(small.equal({**first, "loss": 0}, {**other, "loss": 0}) for other in rest)
    if "loss" in first:
        report["eval_loss"] = max(abs(first["loss"].compute() - other["loss"].compute()) for other in rest)
    if "confusion" in first:
        report["pixels"] = int(first["confusion"].counts.sum())
    return report


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3])))
