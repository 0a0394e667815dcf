"""Training steps of the part `golden`: loss, logits and the norm of every gradient against the official models'."""

import functools
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convert import weights
from experiments import golden_vectors
from experiments.gpu_campaign.precision import PRECISIONS, Precision
from seaformer_jax.losses import cross_entropy, pixel_cross_entropy
from seaformer_jax.models.registry import create_model
from seaformer_jax.models.variables import split_model

_IGNORED = 255
# Stored case -> (task, classes, shape of the images); the model is tiny and the seed of the images is 3.
CASES = {
    "cls_T_train_96": ("classification", 1000, (8, 3, 96, 96)),
    "seg_tiny_train_128x160": ("segmentation", 150, (4, 3, 128, 160)),
}


class Step(NamedTuple):
    """Results of a training step; logits as JAX orders them, and gradients under the official names."""

    loss: float
    logits: np.ndarray
    gradients: dict[str, np.ndarray]


def units(folder: pathlib.Path) -> dict:
    return {
        f"{case} {name}": functools.partial(row, case, name, folder)
        for name in ("float32 highest", "bfloat16")
        for case in CASES
    }


def row(case: str, precision: str, folder: pathlib.Path) -> dict:
    """Returns the deviations of one stored case and precision."""
    expected = golden_vectors.load(folder, case)
    task, classes, shape = CASES[case]
    shapes = golden_vectors.state_dict_shapes(folder, case.partition("_train")[0])
    images = golden_vectors.images(shape, seed=3)
    found = step(task, classes, golden_vectors.fill(shapes), images, PRECISIONS[precision])
    norms = [np.linalg.norm(found.gradients[name].astype(np.float64)) for name in expected["param_names"]]
    # Some gradients are 0 except for rounding; the largest norms are about 50.
    gradients = np.abs(norms - expected["grad_norms"]) / np.maximum(expected["grad_norms"], 1e-2)
    loss = abs(found.loss - float(expected["loss"]))
    logits = float(np.abs(np.moveaxis(found.logits, -1, 1) - expected["logits"]).max())
    right = max(loss, logits) <= 1e-4 and gradients.max() <= 1e-3
    return {
        "training step": case,
        "precision": precision,
        "loss": loss,
        "logits": logits,
        "gradient norms, relative": float(gradients.max()),
        "median": float(np.median(gradients)),
        "within tolerance": ("yes" if right else "**no**") if precision == "float32 highest" else "",
    }


def step(
    task: str, classes: int, state_dict: dict[str, np.ndarray], images: np.ndarray, precision: Precision
) -> Step:
    """Takes the training step of the golden vectors."""
    model = create_model(
        "seaformer_tiny", task, num_classes=classes, drop_path_rate=0.0, dtype=precision.dtype
    )
    weights.from_torch(model, state_dict)
    graphdef, (params, stats) = nnx.graphdef(model), split_model(model)

    def loss(params, x):
        logits = nnx.merge(graphdef, params, stats)(x, train=True)
        return _loss(task, logits), logits

    with jax.default_matmul_precision(precision.products):
        function = jax.jit(jax.value_and_grad(loss, has_aux=True))
        (value, logits), gradients = function(params, images.transpose(0, 2, 3, 1))
    # The gradients take the place of the parameters, so `to_torch` gives them their official names.
    named = weights.to_torch(nnx.merge(graphdef, gradients, stats))
    return Step(float(value), np.asarray(logits, np.float32), named)


def _loss(task: str, logits: jax.Array) -> jax.Array:
    """Returns the mean loss over images or labelled pixels, with the labels of the golden vectors."""
    if task == "classification":
        return cross_entropy(logits, jnp.arange(8) * 100).mean()
    batch, height, width = logits.shape[:3]
    labels = np.random.default_rng(4).integers(0, 151, (batch, 8 * height, 8 * width))
    sums = pixel_cross_entropy(logits, jnp.asarray(np.where(labels == 150, _IGNORED, labels)))
    return sums.loss / sums.pixels
