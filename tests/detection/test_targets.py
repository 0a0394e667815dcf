"""Assignment, targets and losses against mmdetection's."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seaformer_jax.detection import anchors, losses
from seaformer_jax.detection.assignment import assign
from tests import golden
from tests.detection.arrays import flat, levels

CASES = ["assign_96x160", "assign_224x288", "assign_ties_96x160"]


def inside(case: dict[str, np.ndarray]) -> jax.Array:
    return losses.anchors_inside(jnp.asarray(case["image_shapes"]), *case["batch_shape"].tolist())


def exact(function):
    """Compiles as for users: unoptimised code rounds some of the IoUs that have to be equal differently."""
    return jax.jit(function, compiler_options=golden.AS_USERS_COMPILE)


def targets(case: dict[str, np.ndarray]) -> losses.Targets:
    boxes = anchors.anchors(*case["batch_shape"].tolist())
    compute = exact(lambda *arguments: losses.targets(boxes, *arguments))
    return compute(inside(case), case["gt_boxes"], case["gt_labels"], case["gt_valid"])


@pytest.mark.parametrize("name", CASES)
def test_assignment_equals_mmdetection(name):
    case = golden.load(name, "detection")
    np.testing.assert_array_equal(inside(case), case["valid_flags"])
    boxes = anchors.anchors(*case["batch_shape"].tolist())
    assigned, best = exact(assign)(boxes, case["gt_boxes"], case["gt_valid"], case["valid_flags"])
    # The file counts from 1 and has 0 for negatives, -1 for ignored and -2 for anchors outside.
    expected = np.where(case["assigned_gt"] == -2, -1, case["assigned_gt"]) - 1
    np.testing.assert_array_equal(assigned, expected)
    np.testing.assert_allclose(best, case["max_iou"], rtol=0, atol=1e-6)


def test_ties_and_limits_by_hand():
    at = np.array
    cells = [
        ([0, 0, 10, 10], 0),  # As far from box 0 as from box 1, by 0.6: the first one.
        ([0, 0, 10, 6], 0),
        ([0, 4, 10, 10], 1),
        ([100, 0, 110, 10], -2),  # 0.4 of box 2: no longer negative.
        ([100, 0, 110, 4], 2),
        ([100, 50, 110, 60], 3),  # 0.5 of box 3: already positive.
        ([100, 50, 110, 55], 3),
        ([400, 0, 410, 10], 6),  # The closest one to boxes 5 and 6, by 0.3 and 0.35: the last one.
        ([500, 0, 510, 10], -1),
        ([400, 0, 410, 10], -2),  # In the padding.
    ]
    boxes = [[0, 0, 10, 6], [0, 4, 10, 10], [100, 0, 110, 4], [100, 50, 110, 55], [300, 0, 310, 10],
             [400, 0, 410, 3], [400, 0, 410, 3.5], [500, 0, 510, 10]]  # fmt: skip
    within = at([[True] * 9 + [False]])
    valid = at([[True] * 7 + [False]])  # The last box is padding, and box 4 is far from every anchor.
    anchor_boxes = at([box for box, _ in cells], np.float32)
    assigned, best = assign(anchor_boxes, at([boxes], np.float32), valid, within)
    assert assigned[0].tolist() == [box for _, box in cells]
    np.testing.assert_allclose(best[0], [0.6, 1, 1, 0.4, 1, 0.5, 1, 0.35, 0, 0], rtol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_targets_equal_mmdetection(name):
    case = golden.load(name, "detection")
    found = targets(case)
    labels = np.where(case["labels"] == case["num_classes"], -1, case["labels"])
    np.testing.assert_array_equal(found.classes, labels)
    np.testing.assert_array_equal(found.weights, case["label_weights"])
    image, anchor = case["positive_index"].T
    np.testing.assert_array_equal(np.argwhere(found.positive), case["positive_index"])
    np.testing.assert_allclose(found.deltas[image, anchor], case["positive_targets"], rtol=0, atol=1e-5)
    assert float(found.divisor()) == case["normaliser"]


def test_losses_and_gradients_equal_mmdetection():
    case = golden.load("loss_96x160", "detection")
    wanted = targets(case)
    logits, deltas = (jnp.asarray(flat(levels(case, name))) for name in ("cls_logits", "box_deltas"))

    def compute(logits, deltas):
        classes = losses.focal_loss(logits, wanted.classes, wanted.weights) / wanted.divisor()
        boxes = losses.box_loss(deltas, wanted) / wanted.divisor()
        return classes + boxes, (classes, boxes)

    (_, (classes, boxes)), grads = jax.value_and_grad(compute, (0, 1), has_aux=True)(logits, deltas)
    np.testing.assert_allclose(classes, case["loss_cls"], rtol=1e-5)
    np.testing.assert_allclose(boxes, case["loss_box"], rtol=1e-5)
    for found, name in zip(grads, ("grad_cls", "grad_box"), strict=True):
        np.testing.assert_allclose(found, flat(levels(case, name)), rtol=1e-4, atol=1e-7)


def test_levels_add_up():
    case = golden.load("loss_96x160", "detection")
    wanted, logits = targets(case), jnp.asarray(flat(levels(case, "cls_logits")))
    level = np.repeat(np.arange(5), anchors.level_counts(96, 160))
    found = [
        losses.focal_loss(logits, wanted.classes, wanted.weights * (level == i)) / wanted.divisor()
        for i in range(5)
    ]
    np.testing.assert_allclose(found, case["loss_cls_per_level"], rtol=1e-5)


def test_the_focal_loss_is_that_of_optax():
    rng = np.random.default_rng(0)
    logits = (4 * rng.standard_normal((2, 50, 7))).astype(np.float32)
    classes = rng.integers(-1, 7, (2, 50))
    one_hot = classes[..., None] == np.arange(7)
    expected = lambda x: optax.losses.sigmoid_focal_loss(x, one_hot, alpha=0.25, gamma=2).sum()  # noqa: E731
    found = lambda x: losses.focal_loss(jnp.asarray(x), classes, jnp.ones((2, 50)))  # noqa: E731
    np.testing.assert_allclose(found(logits), expected(logits), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(found)(logits), jax.grad(expected)(logits), rtol=1e-5, atol=1e-7)


def test_extreme_logits_have_finite_losses_and_gradients():
    logits, classes = jnp.array([[[200.0, -200.0], [-200.0, 200.0]]]), jnp.array([[1, 1]])
    loss, grad = jax.value_and_grad(losses.focal_loss)(logits, classes, jnp.ones((1, 2)))
    np.testing.assert_allclose(loss, 0.75 * 200 + 0.25 * 200)
    assert np.isfinite(grad).all()


def test_images_without_boxes_have_finite_gradients():
    boxes = anchors.anchors(64, 64)
    nothing = np.zeros((1, 3, 4), np.float32), np.zeros((1, 3), np.int32), np.zeros((1, 3), bool)

    def compute(deltas):
        wanted = losses.targets(boxes, jnp.ones((1, len(boxes)), bool), *nothing)
        return losses.box_loss(deltas, wanted) / wanted.divisor()

    loss, grad = jax.value_and_grad(compute)(jnp.ones((1, len(boxes), 4)))
    assert loss == 0 and not np.any(grad)


def test_there_is_no_array_of_anchors_times_boxes():
    """At COCO's size neither the targets nor the losses of two images need such an array."""
    boxes = anchors.anchors(800, 1344)
    shapes = {
        "logits": jax.ShapeDtypeStruct((2, len(boxes), 80), jnp.float32),
        "deltas": jax.ShapeDtypeStruct((2, len(boxes), 4), jnp.float32),
        "gt": jax.ShapeDtypeStruct((2, 100, 4), jnp.float32),
        "labels": jax.ShapeDtypeStruct((2, 100), jnp.int32),
    }

    def assigned(gt, labels):
        everywhere = jnp.ones((2, len(boxes)), bool)
        return losses.targets(boxes, everywhere, gt, labels, labels >= 0)

    def loss(logits, deltas, gt, labels):
        wanted = assigned(gt, labels)
        return losses.focal_loss(logits, wanted.classes, wanted.weights) + losses.box_loss(deltas, wanted)

    options = golden.AS_USERS_COMPILE
    memory = jax.jit(assigned).lower(shapes["gt"], shapes["labels"]).compile(options).memory_analysis()
    matrix = 2 * len(boxes) * 100 * 4
    assert memory.temp_size_in_bytes < matrix / 4
    step = jax.jit(jax.value_and_grad(loss, (0, 1)))
    memory = step.lower(*shapes.values()).compile(options).memory_analysis()
    assert memory.temp_size_in_bytes < 2.1 * 2 * len(boxes) * 80 * 4  # Two copies of the logits.


def test_an_image_without_positives_counts_as_one_in_the_divisor():
    positive = jnp.array([[False, False, False], [True, True, False], [True, False, False]])
    nothing = jnp.zeros(positive.shape)
    assert losses.Targets(nothing, nothing, positive, nothing[..., None]).divisor() == 1 + 2 + 1


def test_anchors_count_up_to_the_next_multiple_of_32():
    """Of an image of 33 x 64 pixels in 96 x 128 those of cells that begin above row 64 and left of column 64."""
    rows, columns = np.array(anchors.corners(96, 128)).T
    found = losses.anchors_inside(jnp.array([[33, 64]]), 96, 128)
    np.testing.assert_array_equal(found[0], (rows < 64) & (columns < 64))
