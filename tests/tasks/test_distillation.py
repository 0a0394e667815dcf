"""The distillation tasks: their terms by hand, and what is left of them at the borders."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from seaformer_jax import config_check, distillation_losses, losses, tasks
from seaformer_jax.data.labels import IGNORED
from seaformer_jax.errors import UserError
from seaformer_jax.models import extents
from seaformer_jax.models.blocks import Pointwise
from seaformer_jax.tasks.distillation import digest
from tests.training import distilled

CLASSES = distilled.SHAPES_CLASSES
KEY = jax.random.key(0)


class Plain(nnx.Module):
    """A network without BatchNorm and dropout: cells of 8 x 8 pixels, two layers, a last one."""

    def __init__(self, width: int = 6, seed: int = 0):
        rng = np.random.default_rng(seed)
        self.layer, self.last = Pointwise(3, width, rng), Pointwise(width, CLASSES, rng, use_bias=True)
        self.width = width

    def __call__(self, images, train=False, rngs=None):
        return self.classify(self.features(images))

    def features(self, images, train=False, rngs=None):
        cell = self.cell(images)
        batch, height, width, _ = images.shape
        cells = images.reshape(batch, height // cell, cell, width // cell, cell, 3).mean((2, 4))
        return jnp.tanh(self.layer(cells))

    def cell(self, images):
        return 8

    def classify(self, features, train=False, rngs=None):
        return self.last(features)


class Small(Plain):
    """The student at half the sides: cells of 4 x 4."""

    def cell(self, images):
        return 4


def make_task(**changes) -> tasks.Task:
    task = tasks.create(distilled.make_config("segmentation", **changes))
    return task.with_teacher(Plain(seed=5))


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    label = rng.integers(CLASSES, size=(4, 64, 64)).astype(np.uint8)
    label[0, 10:30] = label[2, :, 40:] = label[3] = IGNORED
    image = rng.integers(256, size=(4, 64, 64, 3)).astype(np.uint8)
    return {
        "image": image,
        "label": label,
        "size": np.array([[64, 64], [64, 64], [64, 40], [64, 64]], np.int32),
    }


def loss(task, model, batch, key=KEY):
    graphdef, state = nnx.split(model)
    return jax.jit(lambda state, batch: task.loss(nnx.merge(graphdef, state), batch, key))(
        state, batch | task.constants()
    )


@pytest.mark.parametrize("divisor", ["all", "valid"])
def test_the_loss_is_the_sum_of_its_terms(batch, divisor):
    weights = {"cross": 0.5, "feature": 2.0, "output": 3.0}
    changes = {f"distillation__{name}_weight": value for name, value in weights.items()}
    task = make_task(task__loss_divisor=divisor, distillation__temperature=2.0, **changes)
    teacher, student = Plain(seed=5), Small(seed=6)
    found, metrics = loss(task, student, batch)

    images = task.training_images(batch)
    assert not np.asarray(images[2, :, 40:]).any()  # Padding.
    small = images.reshape(4, 32, 2, 32, 2, 3).mean((2, 4))
    features, target = student.features(small), teacher.features(images)
    labels = torch.from_numpy(batch["label"].astype(np.int64))
    valid = (labels != IGNORED).float()
    count = labels.numel() if divisor == "all" else valid.sum().item()

    def cross_entropy(logits, **how) -> float:
        logits = torch.from_numpy(np.array(logits)).permute(0, 3, 1, 2)
        logits = torch.nn.functional.interpolate(logits, (64, 64), **how)
        summed = torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
        return summed.item() / count

    # Every pixel has the divergence and the distance of its cell.
    of_pixels = valid.reshape(4, 8, 8, 8, 8).sum((2, 4)).numpy()
    divergence = distillation_losses.output_divergence(student.last(features), teacher.last(target), 2.0)
    squares = ((np.square(x) * of_pixels[..., None]).sum() for x in (features - target, target))
    expected = {
        "ce": cross_entropy(student.last(features), mode="bilinear", align_corners=False),
        "cross": cross_entropy(teacher.last(features), mode="nearest"),
        "feature": float(np.divide(*squares)),
        "output": float((divergence * of_pixels).sum() / count),
    }
    for name, value in expected.items():
        assert float(metrics[name]) == pytest.approx(value, rel=1e-5), name
    total = sum(value * weights.get(name, 1.0) for name, value in expected.items())
    assert float(found) == pytest.approx(total, rel=1e-5)


class DropsFeatures(Small):
    def features(self, images, train=False, rngs=None):
        return dropped(super().features(images), train, rngs)


class DropsLogits(Small):
    def classify(self, features, train=False, rngs=None):
        return dropped(super().classify(features), train, rngs)


def dropped(x, train, rngs):
    """Returns `x` with dropout as in the models: in training, if there are random numbers for it."""
    return nnx.Dropout(0.5)(x, deterministic=not train or rngs is None, rngs=rngs)


@pytest.mark.parametrize("student", [DropsFeatures, DropsLogits])
def test_the_student_has_dropout_in_training(batch, student):
    task, model = make_task(), student(seed=6)
    values = [float(loss(task, model, batch, jax.random.key(number))[0]) for number in (0, 0, 1)]
    assert values[0] == values[1] != values[2]


NOTHING = {f"distillation__{name}_weight": 0.0 for name in ("cross", "feature", "output")}


def test_without_weights_it_is_plain_training(batch):
    """The same loss and gradient as the segmentation task on a model that makes its image smaller itself."""
    task = make_task(**NOTHING)

    class Whole(Small):
        def __call__(self, images, train=False, rngs=None):
            return super().__call__(task.shrink(images))

    config = task.config.copy_and_resolve_references()
    config.task.name = "segmentation"
    plain = tasks.create(config)
    model, other = Small(seed=6), Whole(seed=6)

    def gradient(task, model, batch):
        graphdef, params = nnx.split(model)
        return jax.value_and_grad(
            lambda params: task.loss(nnx.merge(graphdef, params), batch, KEY), has_aux=True
        )(nnx.to_pure_dict(params))

    (found, metrics), by = gradient(task, model, batch | task.constants())
    (expected, others), expected_by = gradient(plain, other, batch)
    assert float(found) == pytest.approx(float(expected), rel=1e-6)
    assert metrics.keys() == {"accuracy", "ce"} and metrics["accuracy"] == others["accuracy"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), by, expected_by)


def test_the_teacher_itself_at_ratio_one_has_nothing_to_learn(batch):
    task = make_task(model__upsample_ratio=1.0)
    images = task.training_images(batch)
    np.testing.assert_array_equal(task.shrink(images), images)
    value, metrics = loss(task, Plain(seed=5), batch)
    assert float(metrics["feature"]) < 1e-12 and float(metrics["output"]) < 1e-6
    # The same logits, of pixels and of cells.
    assert float(metrics["cross"]) == pytest.approx(float(metrics["ce"]), rel=1e-2)
    assert float(value) == pytest.approx(float(metrics["ce"] + metrics["cross"]), rel=1e-5)


def test_one_term_alone_reaches_the_features(batch):
    """The teacher's head passes gradients on; only the outputs' terms reach the student's own last layer."""
    graphdef, params = nnx.split(Small(seed=6))
    params, zero = nnx.to_pure_dict(params), jnp.zeros(())
    task = make_task()
    for name in ("cross", "feature", "output"):

        def one(params, name=name):
            _, metrics = task.loss(nnx.merge(graphdef, params), batch | task.constants(), KEY)
            return metrics[name] + zero

        gradient = jax.grad(one)(params)
        assert np.abs(gradient["layer"]["kernel"]).max() > 1e-6, name
        assert (np.abs(gradient["last"]["kernel"]).max() > 1e-6) == (name == "output"), name


@pytest.mark.slow  # tests/models/test_blocks.py compares the types for the model alone.
def test_bfloat16_is_near_float32(batch):
    """Teacher and student compute in it; the terms stay float32."""
    found = {}
    for dtype in ("bfloat16", "float32"):
        task = distilled.make_task("segmentation", dtype=dtype)
        assert task.training_images(batch).dtype == dtype
        found[dtype] = loss(task, task.create_model(), batch)[1]
    for name, expected in found["float32"].items():
        assert found["bfloat16"][name].dtype == jnp.float32, name
        assert float(found["bfloat16"][name]) == pytest.approx(float(expected), rel=0.05), name
    assert found["bfloat16"]["feature"] != found["float32"]["feature"]


def test_ignored_pixels_count_nowhere(batch):
    """Another teacher on an image without labels changes nothing."""
    task, student = make_task(task__loss_divisor="valid"), Small(seed=6)
    other = batch | {
        "image": np.where(np.arange(4)[:, None, None, None] == 3, 255 - batch["image"], batch["image"])
    }
    found, expected = (loss(task, student, b)[1] for b in (other, batch))
    for name in expected:
        assert float(found[name]) == pytest.approx(float(expected[name]), rel=1e-6), name
    nothing = batch | {"label": np.full_like(batch["label"], IGNORED)}
    assert float(loss(task, student, nothing)[0]) == 0


@pytest.mark.parametrize("ratio", [2.0, 1.5, 4.0, 1.3])
def test_shrinking_equals_torch(ratio):
    task = make_task(model__upsample_ratio=ratio)
    images = np.random.default_rng(0).standard_normal((2, 24, 37, 3)).astype(np.float32)
    size = [round(side / ratio) for side in images.shape[1:3]]
    # In float64: PyTorch rounds the positions of its samples, ours are exact.
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(images).double().permute(0, 3, 1, 2), size, mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(task.shrink(images), expected.permute(0, 2, 3, 1), rtol=0, atol=1e-5)
    # Padded images give the same, whatever the padding.
    padded = np.random.default_rng(1).standard_normal((2, 40, 41, 3)).astype(np.float32)
    padded[:, :24, :37] = images
    found, sizes = jax.jit(task.shrink_padded)(padded, np.array([[24, 37], [40, 41]]))
    assert sizes.tolist() == [size, [round(40 / ratio), round(41 / ratio)]]
    np.testing.assert_allclose(found[0, : size[0], : size[1]], task.shrink(images)[0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found[1], task.shrink(padded)[1], rtol=0, atol=1e-6)


def test_classification_by_hand():
    changes = {"augment__mixup": 0.0, "augment__erasing": 0.0, "model__drop_path_rate": 0.0}
    task = distilled.make_task("classification", distillation__temperature=3.0, **changes)
    teacher = distilled.teacher("classification")
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(256, size=(4, 64, 64, 3)).astype(np.uint8),
        "label": rng.integers(CLASSES - 1, size=4).astype(np.int32),
    }

    def both(model, batch):
        images = task.normalize(batch["image"])
        features = model.features(task.shrink(images), train=True)
        target = teacher.features(images)
        logits = model.classify(features), teacher.classify(features), teacher.classify(target)
        return logits, features, target

    (logits, crossed, taught), features, target = jax.jit(lambda batch: both(task.create_model(), batch))(
        batch
    )
    step = jax.jit(lambda batch: task.loss(task.create_model(), batch, KEY))
    value, metrics = step(batch | task.constants())
    smooth = 0.9 * np.eye(CLASSES - 1)[batch["label"]] + 0.1 / (CLASSES - 1)
    expected = {
        "ce": losses.soft_cross_entropy(logits, smooth).mean(),
        "cross": losses.soft_cross_entropy(crossed, smooth).mean(),
        "feature": np.square(features - target).sum() / np.square(target).sum(),
        "output": distillation_losses.output_divergence(logits, taught, 3.0).mean(),
    }
    for name, number in expected.items():
        assert float(metrics[name]) == pytest.approx(float(number), rel=1e-4), name
    assert float(value) == pytest.approx(sum(map(float, expected.values())), rel=1e-4)
    assert features.shape == target.shape == (4, 16, 16, 16)


def test_evaluation_sees_the_image_smaller(batch):
    task = make_task()
    seen = []

    class Spy(Small):
        def __call__(self, images, train=False, rngs=None, sizes=None):
            seen.append((images.shape, sizes.tolist()))
            return super().__call__(images)

        def extent(self, images, sizes):
            return extents.of(images, sizes).strided(4)

    batch = {"image": batch["image"], "label": np.zeros((4, 128, 128), np.uint8)}
    batch["size"], batch["label_size"] = np.full((4, 2), 50, np.int32), np.full((4, 2), 100, np.int32)
    classes = task.predict_classes(Spy(), batch)
    assert classes.shape == (4, 128, 128) and seen == [((4, 32, 32, 3), [[25, 25]] * 4)]


def test_the_config_keeps_what_a_run_has_to_know():
    task = make_task()
    assert task.config.model.upsample_width == 6
    assert task.config.teacher.sha256 == digest(task.constants()["teacher"])
    task.with_teacher(Plain(seed=5))  # The same one again.
    with pytest.raises(
        UserError, match=r"teacher\.sha256 is '[0-9a-f]{64}', but the teacher .* choose the teacher with"
    ):
        task.with_teacher(Plain(seed=6))
    with pytest.raises(UserError, match=r"model\.upsample_width is 6, but the teacher .* has 7"):
        task.with_teacher(Plain(width=7))


def test_a_task_without_its_teacher():
    task = tasks.create(distilled.make_config("segmentation"))
    with pytest.raises(UserError, match=r"no teacher to distil from; set teacher\.source"):
        task.constants()


@pytest.mark.parametrize(
    ("ratio", "crop", "says"),
    [
        (
            3.0,
            (64, 64),
            r"model\.upsample_ratio is 3\.0; .* divides data\.crop_size, \(64, 64\), into multiples of 8",
        ),
        (0.5, (64, 64), "at least 1"),
        (2.0, (72, 64), r"multiples of 8"),
        (2.0, (32, 64), "of at least 32 pixels"),
    ],
)
def test_a_ratio_that_does_not_divide(ratio, crop, says):
    config = distilled.make_config("segmentation", model__upsample_ratio=ratio, data__crop_size=crop)
    with pytest.raises(UserError, match=says):
        config_check.check(config)


def test_ratios_that_divide():
    for ratio, crop in ((2.0, (64, 80)), (1.5, (96, 72)), (4 / 3, (64, 128)), (1.0, (40, 48))):
        config_check.check(
            distilled.make_config("segmentation", model__upsample_ratio=ratio, data__crop_size=crop)
        )
    config_check.check(distilled.make_config("classification", model__upsample_ratio=1.6))
    with pytest.raises(UserError, match="whole numbers"):
        config_check.check(distilled.make_config("classification", model__upsample_ratio=1.5))
