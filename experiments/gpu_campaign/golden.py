"""The part `golden`: how far the device's results are from those of the official models and of PyTorch on a CPU.

The golden vectors cover some models and a training step of each task; `golden_training.py` measures the latter. The
other models are compared with the PyTorch mirror.
"""

import functools
import pathlib
from typing import NamedTuple

import jax
import numpy as np
import torch
from flax import nnx

from convert import torch_model, torch_segmentation, weights
from experiments import golden_vectors
from experiments.gpu_campaign import golden_training
from experiments.gpu_campaign.part import Part
from experiments.gpu_campaign.precision import PRECISIONS, Precision
from experiments.gpu_campaign.settings import Settings
from seaformer_jax.models.registry import create_model

NOTE = (
    "First table: largest deviation of the logits in evaluation mode, with weights by the golden vectors' rule. "
    "`highest` is JAX's precision of products in full float32 (`JAX_DEFAULT_MATMUL_PRECISION=highest`); by "
    "default they are TF32. Within tolerance means at most 1e-4 in `highest`, and at most 1 % (default) and 3 % "
    "(bfloat16) of the largest logit. Second table: a training step, where 1e-4 of loss and logits and 1e-3 of the "
    "norms are tolerated in `highest`. Its few values in each BatchNorm amplify rounding, so that bfloat16 has no "
    "tolerance there."
)
MIRRORS = {"classification": torch_model, "segmentation": torch_segmentation}


class Reference(NamedTuple):
    """What a model has to compute.

    Attributes:
        task: "classification" or "segmentation".
        model: Name of the model.
        state_dict: Its weights, under the official names.
        images: [B, 3, H, W].
        logits: [B, classes], or for segmentation [B, classes, h, w].
    """

    task: str
    model: str
    state_dict: dict[str, np.ndarray]
    images: np.ndarray
    logits: np.ndarray


# Stored case -> (task, model, shape of the images, seed of the images).
OFFICIAL = {
    "cls_T_eval_224": ("classification", "seaformer_tiny", (2, 3, 224, 224), 0),
    "cls_S_eval_160x256": ("classification", "seaformer_small", (2, 3, 160, 256), 1),
    "cls_T_eval_203x261": ("classification", "seaformer_tiny", (1, 3, 203, 261), 2),
    "seg_tiny_eval_200x264": ("segmentation", "seaformer_tiny", (1, 3, 200, 264), 1),
    "seg_large_eval_200x264": ("segmentation", "seaformer_large", (1, 3, 200, 264), 1),
}


def units(settings: Settings) -> dict:
    folder = settings.shared / "golden"
    found = {case: functools.partial(official, case, folder) for case in OFFICIAL}
    stored = [case[:2] for case in OFFICIAL.values()]
    # Models without stored vectors.
    others = [(task, model) for model in settings.models for task in MIRRORS if (task, model) not in stored]
    found |= {f"{task} {model}": functools.partial(mirror, task, model) for task, model in others}
    return found | golden_training.units(folder)


def official(case: str, folder: pathlib.Path) -> dict:
    """Returns the row of a stored case."""
    task, model, shape, seed = OFFICIAL[case]
    name = case.partition("_eval")[0]
    state_dict = golden_vectors.fill(golden_vectors.state_dict_shapes(folder, name))
    logits = golden_vectors.load(folder, case)["logits"]
    return row(case, Reference(task, model, state_dict, golden_vectors.images(shape, seed), logits))


def mirror(task: str, model: str) -> dict:
    """Returns the row of a model whose reference is PyTorch on the CPU."""
    return row(f"{task}, PyTorch", mirrored(task, model, (2, 3, 224, 224)))


def mirrored(task: str, model: str, shape: tuple[int, int, int, int]) -> Reference:
    """Returns what the PyTorch mirror computes for images of `shape`."""
    network = MIRRORS[task].create_model(model, num_classes=150).eval()
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    state_dict = golden_vectors.fill(shapes)
    network.load_state_dict({name: torch.from_numpy(value) for name, value in state_dict.items()})
    images = golden_vectors.images(shape, seed=5)
    with torch.inference_mode():
        logits = network(torch.from_numpy(images)).numpy()
    return Reference(task, model, state_dict, images, logits)


def row(case: str, reference: Reference) -> dict:
    """Returns the deviation of every precision, and whether all are within their tolerances."""
    largest = float(np.abs(reference.logits).max())
    found = {name: deviation(reference, precision) for name, precision in PRECISIONS.items()}
    right = all(
        found[name] <= precision.absolute + precision.relative * largest
        for name, precision in PRECISIONS.items()
    )
    return {
        "case": case,
        "model": reference.model,
        "largest logit": largest,
        **found,
        "within tolerance": "yes" if right else "**no**",
    }


def deviation(reference: Reference, precision: Precision) -> float:
    """Returns the largest absolute difference between our logits and those of the reference."""
    classes = reference.logits.shape[1]
    model = create_model(reference.model, reference.task, num_classes=classes, dtype=precision.dtype)
    weights.from_torch(model, reference.state_dict)
    graphdef, state = nnx.split(model)
    forward = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x, train=False))
    with jax.default_matmul_precision(precision.products):
        logits = forward(state, reference.images.transpose(0, 2, 3, 1))
    # Classes are the last axis in JAX and the second one in PyTorch.
    return float(np.abs(np.moveaxis(np.asarray(logits, np.float32), -1, 1) - reference.logits).max())


PART = Part(NOTE, units)
