"""Both sides of the benchmark compute the same."""

import jax
import jax.numpy as jnp
import numpy as np
import torch

from experiments import detection_speed, torch_retinanet
from seaformer_jax.detection import anchors, losses, postprocess
from tests import golden

SIZE = (64, 96)


def outputs(batch: int) -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
    rng, grid = np.random.default_rng(1), anchors.anchors(*SIZE)
    shape = batch, len(grid)
    # All different, so that both sides have one order.
    logits = rng.permutation(np.linspace(-4, 4, batch * len(grid) * detection_speed.CLASSES))
    logits = logits.reshape(*shape, -1).astype(np.float32)
    return logits, (0.3 * rng.standard_normal((*shape, 4))).astype(np.float32), torch.tensor(grid)


def test_losses_are_equal():
    logits, deltas, grid = outputs(2)
    _, boxes, labels = map(torch.from_numpy, detection_speed.examples(2, SIZE))
    theirs = torch_retinanet.loss(torch.tensor(logits), torch.tensor(deltas), grid, boxes, labels)
    compute = jax.jit(
        lambda data: detection_speed.targets(data, SIZE), compiler_options=golden.AS_USERS_COMPILE
    )
    wanted = compute(detection_speed.our_batch(2, SIZE))
    ours = losses.focal_loss(jnp.asarray(logits), wanted.classes, wanted.weights)
    ours = (ours + losses.box_loss(jnp.asarray(deltas), wanted)) / wanted.divisor()
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_boxes_are_equal():
    logits, deltas, grid = outputs(1)
    counts = list(anchors.level_counts(*SIZE))
    theirs = torch_retinanet.detect(torch.tensor(logits[0]), torch.tensor(deltas[0]), grid, counts, SIZE)
    found = postprocess.detect(
        logits, deltas, SIZE, jnp.asarray([SIZE]), jnp.ones((1, 2)), 4.0, detection_speed.SETTINGS
    )
    for ours, other in zip(found, theirs, strict=True):
        np.testing.assert_allclose(ours[0], other, rtol=1e-4, atol=1e-3)
