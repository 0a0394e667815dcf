"""The classification task against PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from seaformer_jax import config as configs
from seaformer_jax import tasks
from seaformer_jax.errors import UserError
from seaformer_jax.tasks.classification import Classification

CLASSES = 10


class Pixels(nnx.Module):
    """The first pixels of an image are its logits."""

    def __call__(self, images, train=False, rngs=None):
        return images.reshape(len(images), -1)[:, :CLASSES]


def make_task(**changes) -> Classification:
    config = configs.default()
    config.data.mean, config.data.std = (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)  # Pixels as they are.
    config.task.num_classes = CLASSES
    config.augment.erasing = 0.0
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return Classification(config)


@pytest.fixture(scope="module")
def batch():
    """Images [64, 2, 2, 3] without ties among the logits, and labels."""
    rng = np.random.default_rng(0)
    images = np.stack([rng.permutation(20)[:12].reshape(2, 2, 3) for _ in range(64)]).astype(np.uint8)
    return {"image": images, "label": rng.integers(CLASSES, size=64).astype(np.int32)}


def logits_of(batch) -> torch.Tensor:
    return torch.tensor(batch["image"].reshape(64, -1)[:, :CLASSES].astype(np.float32))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_accuracy_equal_torch(batch, smoothing):
    task = make_task(task__label_smoothing=smoothing)
    loss, metrics = jax.jit(lambda batch, key: task.loss(Pixels(), batch, key))(batch, jax.random.key(0))
    logits, labels = logits_of(batch), torch.tensor(batch["label"], dtype=torch.long)
    expected = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    assert float(loss) == pytest.approx(expected.item(), rel=1e-6)
    accuracy = (logits.argmax(1) == labels).float().mean().item()
    assert 0 < accuracy < 1
    assert float(metrics["accuracy"]) == pytest.approx(accuracy)


def test_loss_mixes_images_and_targets_alike(batch):
    """The loss is that of the images which the model sees, by PyTorch's soft targets."""
    task = make_task(augment__mixup=1.0, augment__mix_group=64, task__label_smoothing=0.0)
    batch = {**batch, "label": logits_of(batch).argmax(1).numpy().astype(np.int32)}

    @jax.jit
    def loss_and_images(batch, key):
        seen = []

        class Spy(Pixels):
            def __call__(self, images, train=False, rngs=None):
                assert train and rngs is not None
                seen.append(images)
                return super().__call__(images)

        return task.loss(Spy(), batch, key)[0], seen[0]

    loss, mixed = jax.device_get(loss_and_images(batch, jax.random.key(3)))
    reversed_ = batch["image"][::-1].astype(np.float64)
    own, left = batch["image"] - reversed_, mixed - reversed_
    lam = (own * left).sum() / (own * own).sum()  # The mixed images are lam * own + (1 - lam) * reversed.
    assert 0.02 < lam < 0.98
    one_hot = torch.eye(CLASSES)[torch.tensor(batch["label"], dtype=torch.long)]
    targets = lam * one_hot + (1 - lam) * one_hot.flip(0)
    logits = torch.tensor(mixed.reshape(64, -1)[:, :CLASSES])
    expected, unmixed = (
        torch.nn.functional.cross_entropy(logits, target).item() for target in (targets, one_hot)
    )
    # Mixed pixels are rounded, so that lam is known only roughly.
    assert float(loss) == pytest.approx(expected, rel=2e-3)
    assert abs(unmixed - expected) > 0.1 * expected


def test_counts_equal_torch(batch):
    mask = np.arange(64) % 3 > 0
    count = jax.jit(lambda batch: make_task().eval_metrics(Pixels(), batch))
    counts = jax.device_get(count({**batch, "mask": mask}))
    logits, labels = logits_of(batch)[mask], torch.tensor(batch["label"], dtype=torch.long)[mask]
    top = logits.topk(5).indices
    assert counts["top1"].total == (top[:, 0] == labels).sum().item()
    assert counts["top5"].total == (top == labels[:, None]).any(1).sum().item()
    assert 0 < counts["top1"].total < counts["top5"].total < counts["top5"].count == mask.sum()
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    assert counts["loss"].total == pytest.approx(losses.sum().item(), rel=1e-6)
    expected = np.zeros((CLASSES, CLASSES), int)
    np.add.at(expected, (labels.numpy(), logits.argmax(1).numpy()), 1)
    assert np.array_equal(counts["confusion"].counts, expected)


def test_a_model_that_gives_nan_is_never_right(batch):
    class Diverged(Pixels):
        def __call__(self, images, train=False, rngs=None):
            return super().__call__(images) * jnp.nan

    counts = make_task().eval_metrics(Diverged(), {**batch, "mask": np.ones(64, bool)})
    assert counts["top5"].total == 0
    assert np.isnan(counts["loss"].compute())


def test_summary():
    task = make_task()
    counts = task.eval_metrics(
        Pixels(), {"image": np.zeros((4, 2, 2, 3), np.uint8), "label": np.arange(4), "mask": np.arange(4) < 3}
    )
    summary = task.summarize(jax.device_get(counts))
    assert summary == {
        "loss": pytest.approx(np.log(10)),
        "top1": pytest.approx(100 / 3),
        "top5": 100,
        "images": 3,
    }
    assert task.best_metric in summary and isinstance(summary["images"], int)


def test_erasing_draws_standard_normal_noise_on_normalised_images():
    task = make_task(augment__erasing=1.0, data__mean=(0.5,) * 3, data__std=(0.25,) * 3)
    batch = {"image": np.full((64, 16, 16, 3), 255, np.uint8), "label": np.zeros(64, np.int32)}
    images = np.asarray(jax.jit(task.training_images)(batch, jax.random.key(0))[0])
    noise = images[images != 2]  # (255 / 255 - 0.5) / 0.25
    assert 0.05 < noise.size / images.size < 0.3  # A box takes 2 to 33 % of an image.
    assert abs(noise.mean()) < 0.05 and abs(noise.std() - 1) < 0.05


def test_what_the_device_augments_is_left_out_on_the_host():
    element = {"image": np.arange(48 * 48 * 3, dtype=np.uint8).reshape(48, 48, 3), "label": 1}

    def on_host(rand_augment: str, **more) -> np.ndarray:
        changes = {"augment__rand_augment": rand_augment, "augment__flip": 1.0, **more}
        task = make_task(data__image_size=32, **changes)
        return task.train_transform().random_map(element, np.random.default_rng(0))["image"]

    plain = on_host("rand-m10-n15", augment__on_device=True)
    mirrored = on_host("")
    np.testing.assert_array_equal(plain, mirrored[:, ::-1])
    assert not np.array_equal(mirrored, on_host("rand-m10-n15"))


def test_the_device_flips_and_augments():
    batch = {"image": np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3)).astype(np.uint8)}
    batch["label"] = np.zeros(16, np.int32)

    def images(**changes) -> np.ndarray:
        task = make_task(augment__on_device=True, **changes)
        return np.asarray(jax.jit(task.training_images)(batch, jax.random.key(0))[0])

    mirrored = images(augment__flip=1.0, augment__rand_augment="")
    np.testing.assert_allclose(mirrored, batch["image"][:, :, ::-1], atol=1e-3)
    augmented = images(augment__flip=0.0, augment__rand_augment="rand-m10-n3")
    changed = np.any(np.abs(augmented - batch["image"]) > 0.5, axis=(1, 2, 3))
    assert changed.sum() > 8  # Of three operations, none is applied to one image in eight.
    assert not np.array_equal(images(augment__rand_augment=""), batch["image"])


def test_the_data_follow_the_seed_of_the_config():
    def first(seed: int) -> np.ndarray:
        batches = make_task(task__num_classes=8, data__image_size=40, batch_size=4, seed=seed).train_batches(
            0
        )
        images = next(batches)["image"]
        batches.close()
        return images

    assert not np.array_equal(first(1), first(2))


def test_warps_fill_with_the_mean_of_the_config():
    policy = make_task(data__mean=(0.1, 0.2, 0.3)).train_transform()._policy
    assert policy.fill == (26, 51, 76)  # round(255 * mean)


@pytest.mark.parametrize("batch_size", [4, 6])
def test_the_example_is_like_the_batches(batch_size):
    task = make_task(task__num_classes=8, data__image_size=40, batch_size=batch_size)
    batches = task.train_batches(0)
    batch = next(batches)
    batches.close()
    assert batch.pop("skipped").shape == (batch_size,)
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), batch)
    assert shapes == jax.tree.map(lambda x: (x.shape, x.dtype), task.example_batches(batch_size)[0])


def test_evaluation_batches_hold_the_validation_split():
    task = make_task(task__num_classes=8, data__image_size=40, data__val_size=5, eval__batch_size=4)
    labels = np.concatenate([batch["label"][batch["mask"]] for batch in task.eval_batches()])
    assert labels.tolist() == [task.val_source[index]["label"] for index in range(5)]


def test_the_data_set_gives_the_number_of_classes():
    task = make_task(task__num_classes=0)
    assert task.num_classes == 8 and task.class_names[0] == "circle"
    assert Classification(task.config, ["x", "y"]).num_classes == 2


@pytest.mark.parametrize(
    "open_batches", [lambda task: task.train_batches(0), lambda task: task.eval_batches()]
)
def test_another_number_of_classes_is_refused(open_batches):
    with pytest.raises(UserError, match=r"has 8 classes .* task\.num_classes is 10"):
        open_batches(make_task())


def test_the_model_is_the_one_of_the_config():
    task = make_task(model__drop_path_rate=0.3, model__bn_groups=2, dtype="bfloat16", seed=3)
    model = task.create_model()
    assert model.head.kernel.shape[1] == CLASSES
    assert model.backbone.stages[3].sea[-1].drop_path.rate == 0.3
    assert model.backbone.stem.bn.groups == 2
    assert model.backbone.dtype == jnp.bfloat16
    other = make_task(seed=4).create_model()
    assert not np.array_equal(model.head.kernel[...], other.head.kernel[...])


def test_what_needs_class_maps_is_refused(tmp_path):
    with pytest.raises(UserError, match="--show-dir draws class maps"):
        make_task().show(Pixels(), tmp_path)
    with pytest.raises(UserError, match="--heatmap is drawn over class maps"):
        make_task().predict(Pixels(), [], tmp_path, heatmap=True)


def test_tasks_by_name():
    config = configs.default()
    assert isinstance(tasks.create(config, ["x"]), Classification)
    config.task.name = "clasification"
    with pytest.raises(UserError, match="Did you mean 'classification'"):
        tasks.create(config)
