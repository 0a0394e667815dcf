"""The segmentation task against PyTorch and plain loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from PIL import Image

from seaformer_jax import config as configs
from seaformer_jax import mesh as meshes
from seaformer_jax import tasks
from seaformer_jax.data.labels import distinct_colours
from seaformer_jax.data.segmentation import batches as segmentation_batches
from seaformer_jax.data.segmentation import buckets
from seaformer_jax.data.segmentation.transforms import SegmentationEvalTransform
from seaformer_jax.data.sources import SkipCorrupt
from seaformer_jax.errors import UserError
from seaformer_jax.evaluation.evaluator import Evaluator
from seaformer_jax.metrics import merge
from seaformer_jax.models import extents
from seaformer_jax.models.variables import split_model
from seaformer_jax.tasks.segmentation import Segmentation
from tests import toys

CLASSES = 3
SIZES = ((64, 96), (96, 64), (64, 90), (64, 96), (40, 33))  # Of the validation images, (height, width).


class Colours(nnx.Module):
    """A pixel's class is its brightest channel; logits from the middles of 8 x 8 cells."""

    def __init__(self):
        self.scale = nnx.Param(jnp.float32(1))

    def __call__(self, images, train=False, rngs=None, sizes=None):
        assert train == (rngs is not None)
        sizes = jnp.broadcast_to(jnp.array(images.shape[1:3]), (len(images), 2)) if sizes is None else sizes

        def cells(image, size):
            # Beyond the image its last row and column repeat.
            middles = (
                jnp.minimum(8 * jnp.arange(-(-side // 8)) + 4, size[axis] - 1)
                for axis, side in enumerate(image.shape[:2])
            )
            return image[jnp.ix_(*middles)]

        return self.scale[...] * jax.vmap(cells)(images, sizes)

    def extent(self, images, sizes):
        return extents.of(images, sizes).strided(8)


def make_task(**changes) -> Segmentation:
    config = configs.segmentation()
    config.data.mean, config.data.std = (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)  # Pixels as they are.
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return Segmentation(config)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    label = rng.integers(CLASSES, size=(4, 16, 24))
    label[2:] = np.where(rng.random((2, 16, 24)) < 0.5, 255, label[2:])
    label[1, :, 20:] = label[2, 9:] = 255  # Padding.
    image = rng.integers(256, size=(4, 16, 24, 3))
    size = np.array([[16, 24], [16, 20], [9, 24], [16, 24]])
    return {"image": image.astype(np.uint8), "label": label.astype(np.uint8), "size": size.astype(np.int32)}


@pytest.mark.parametrize("divisor", ["all", "valid"])
def test_loss_and_accuracy_equal_torch(batch, divisor):
    task = make_task(task__loss_divisor=divisor)
    loss, metrics = jax.jit(lambda batch, key: task.loss(Colours(), batch, key))(batch, jax.random.key(0))
    images = batch["image"].astype(np.float32)
    images[1, :, 20:] = images[2, 9:] = 0  # Padding.
    logits = torch.from_numpy(images[:, 4::8, 4::8]).permute(0, 3, 1, 2)
    logits = torch.nn.functional.interpolate(logits, size=(16, 24), mode="bilinear", align_corners=False)
    labels = torch.from_numpy(batch["label"].astype(np.int64))
    losses = torch.nn.functional.cross_entropy(logits, labels, ignore_index=255, reduction="none")
    valid = labels != 255
    expected = losses.mean() if divisor == "all" else losses[valid].mean()
    assert float(loss) == pytest.approx(expected.item(), rel=1e-6)
    right = (logits.argmax(1) == labels)[valid].float().mean().item()
    assert 0 < right < 1
    assert float(metrics["accuracy"]) == pytest.approx(right)


def test_padding_is_zero_after_normalisation(batch):
    task = make_task(data__mean=(0.5, 0.4, 0.3), data__std=(0.2, 0.2, 0.2))
    seen = []

    class Spy(Colours):
        def __call__(self, images, train=False, rngs=None):
            seen.append(images)
            return super().__call__(images, train, rngs)

    task.loss(Spy(), batch, jax.random.key(0))
    for image, pixels, (height, width) in zip(seen[0], batch["image"], batch["size"], strict=True):
        inside = np.zeros((16, 24, 1), bool)
        inside[:height, :width] = True
        expected = np.where(inside, (pixels / 255 - (0.5, 0.4, 0.3)) / 0.2, 0)
        np.testing.assert_allclose(image, expected, rtol=0, atol=1e-5)


def test_nothing_labelled_is_no_nan(batch):
    task = make_task(task__loss_divisor="valid")
    batch = batch | {"label": np.full_like(batch["label"], 255)}
    loss, metrics = task.loss(Colours(), batch, jax.random.key(0))
    assert float(loss) == float(metrics["accuracy"]) == 0


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A folder of images of several sizes, in blocks of 24 pixels, and masks that agree with most of them."""
    place, rng = tmp_path_factory.mktemp("pairs"), np.random.default_rng(3)
    for kind in ("images", "annotations"):
        for split in ("train", "val"):
            (place / kind / split).mkdir(parents=True)
    for index, (height, width) in enumerate(SIZES):
        blocks = rng.integers(CLASSES, size=(height // 24 + 1, width // 24 + 1))
        label = blocks.repeat(24, 0).repeat(24, 1)[:height, :width]
        image = np.eye(CLASSES)[label] * 150 + rng.integers(100, size=(height, width, 3))
        label = np.where(rng.random(label.shape) < 0.2, rng.choice([0, 1, 2, 255], label.shape), label)
        for split in ("train", "val"):
            Image.fromarray(image.astype(np.uint8)).save(place / f"images/{split}/{index}.png")
            Image.fromarray(label.astype(np.uint8)).save(place / f"annotations/{split}/{index}.png")
    return place


def pairs_task(pairs, **changes) -> Segmentation:
    fixed = {"data__source": "pairs", "data__root": str(pairs), "data__class_names": ("r", "g", "b")}
    return make_task(**fixed | {"eval__batch_size": 2, "eval__scale": (96, 96)} | changes)


def evaluate(task: Segmentation) -> dict:
    model = Colours()
    evaluator = Evaluator(nnx.graphdef(model), task.eval_metrics, task.eval_batches, meshes.create_mesh())
    return evaluator(*split_model(model))


@pytest.fixture(scope="module")
def expected(pairs):
    """The confusion matrix of a loop over the images, upsampled by PyTorch."""
    task, counts = pairs_task(pairs), np.zeros((CLASSES, CLASSES), np.int64)
    transform = SegmentationEvalTransform(task.config.eval)
    for element in (task.val_source[i] for i in range(len(SIZES))):
        image = transform.map(element)["image"]
        logits = torch.from_numpy(np.array(Colours()(image[None].astype(np.float32)))).permute(0, 3, 1, 2)
        for size in (image.shape[:2], element["label"].shape):
            logits = torch.nn.functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        guess, label = logits.argmax(1)[0].numpy(), element["label"]
        np.add.at(counts, (label[label < 255], guess[label < 255]), 1)
    return counts


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_no_number_depends_on_the_batch_size(pairs, expected, batch_size):
    counts = evaluate(pairs_task(pairs, eval__batch_size=batch_size))
    assert np.array_equal(counts["confusion"].counts, expected)
    assert counts["confusion"].counts.dtype == np.int64
    assert counts["images"].count == len(SIZES)


@pytest.mark.parametrize("limit", [1, 2])
def test_no_number_depends_on_the_buckets(pairs, expected, monkeypatch, limit):
    monkeypatch.setattr(buckets, "LIMIT", limit)
    assert np.array_equal(evaluate(pairs_task(pairs))["confusion"].counts, expected)


SETTINGS = [
    {},
    {"eval__mode": "slide", "eval__slide_crop": (40, 56), "eval__slide_stride": (27, 30)},
    {"eval__scales": (1.0, 0.75), "eval__flip": True},
    {"eval__size_divisor": 32},
]


@pytest.mark.parametrize(
    "settings",
    [pytest.param(one, id=str(k), marks=pytest.mark.slow if k else ()) for k, one in enumerate(SETTINGS)],
)
def test_no_number_of_a_seaformer_depends_on_the_buckets(pairs, monkeypatch, settings):
    """All images in one program, against a program for every size, which has no padding."""
    toys.register()
    task = pairs_task(pairs, model__name="mini", eval__batch_size=1, **settings)
    model, rng = task.create_model(), np.random.default_rng(0)

    def lively(x: jax.Array) -> jax.Array:  # The attention of a fresh model adds nothing.
        return x + 0.5 * jnp.abs(rng.standard_normal(x.shape)) if x.ndim == 1 else x

    nnx.update(model, jax.tree.map(lively, nnx.state(model)))
    # The logits of every class have the mean 0, so that each wins somewhere.
    image = next(iter(task.eval_batches()))["image"].astype(np.float32)
    logits = nnx.jit(lambda model, image: model(image))(model, image)
    model.head.classify.bias[...] -= logits.mean((0, 1, 2))
    found = []
    for limit in (1, 100):
        monkeypatch.setattr(buckets, "LIMIT", limit)
        evaluator = Evaluator(nnx.graphdef(model), task.eval_metrics, task.eval_batches, meshes.create_mesh())
        found.append(evaluator(*split_model(model))["confusion"].counts)
    assert (found[1].sum(0) > 0).sum() > 1  # Several classes are predicted.
    # Rounding can separate two equal scores.
    assert np.abs(found[0] - found[1]).sum() <= 2e-4 * found[1].sum()


def test_no_number_depends_on_the_number_of_hosts(pairs, expected):
    task, total = pairs_task(pairs), None
    count = jax.jit(lambda batch: task.eval_metrics(Colours(), batch))
    source = SkipCorrupt(task.val_source, "error", replace=False)
    transform = SegmentationEvalTransform(task.config.eval)
    for host in range(2):
        batches = segmentation_batches.eval_batches(
            source, transform, batch_size=2, process_index=host, process_count=2
        )
        for batch in batches:
            assert len(batch["image"]) == 1
            batch.pop("skipped")
            total = merge(total, count(batch))
    assert np.array_equal(total["confusion"].counts, expected)
    assert total["images"].count == len(SIZES)


def test_several_scales_and_flips(pairs, expected):
    task = pairs_task(pairs, eval__scales=(1.0, 0.75), eval__flip=True)
    counts = evaluate(task)["confusion"].counts
    assert counts.sum() == expected.sum()
    assert np.array_equal(counts.sum(1), expected.sum(1))
    assert not np.array_equal(counts, expected)
    assert np.trace(counts) > 0.6 * counts.sum()


def test_summary(pairs, expected):
    task = pairs_task(pairs)
    found = task.summarize(evaluate(task))
    union = expected.sum(0) + expected.sum(1) - np.diag(expected)
    assert found == {
        "mIoU": pytest.approx(100 * np.mean(np.diag(expected) / union)),
        "mAcc": pytest.approx(100 * np.mean(np.diag(expected) / expected.sum(1))),
        "aAcc": pytest.approx(100 * np.trace(expected) / expected.sum()),
        "images": len(SIZES),
    }
    assert task.best_metric in found and isinstance(found["images"], int)


def test_broken_images_are_left_out(pairs, tmp_path):
    for kind in ("images", "annotations"):
        (tmp_path / kind).symlink_to(pairs / kind)
    broken = pairs / "images/broken"
    broken.mkdir()
    (pairs / "annotations/broken").symlink_to(pairs / "annotations/val")
    for path in (pairs / "images/val").iterdir():
        content = path.read_bytes()
        (broken / path.name).write_bytes(content[: len(content) // 2] if path.stem == "1" else content)
    counts = evaluate(pairs_task(pairs, data__val_split="broken", data__on_corrupt="skip"))
    assert counts["images"].count == len(SIZES) - 1


def test_the_example_is_like_the_batches():
    task = make_task(data__crop_size=(64, 72), data__image_size=64, batch_size=4)
    batches = task.train_batches(0)
    batch = next(batches)
    batches.close()
    batch.pop("skipped")
    shapes = functools.partial(jax.tree.map, lambda x: (x.shape, x.dtype))
    assert shapes(batch) == shapes(task.example_batches(4)[0])


def test_show_writes_every_image(pairs, tmp_path):
    pairs_task(pairs).show(_WithBackbone(), tmp_path)
    pictures = sorted(tmp_path.iterdir())
    assert [picture.name for picture in pictures] == [f"{k:05}.png" for k in range(len(SIZES))]
    assert [Image.open(p).size for p in pictures] == [(2 * width, height) for height, width in SIZES]


class _WithBackbone(Colours):
    backbone = None


def test_colours_are_those_of_the_data_or_distinct(pairs):
    colours = ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    assert pairs_task(pairs, data__palette=colours).palette == colours
    config = pairs_task(pairs, data__root="nowhere").config
    assert Segmentation(config, ["r", "g", "b"]).palette == distinct_colours(3)


def test_the_model_is_the_one_of_the_config():
    task = make_task(model__fusion_widths=(8, 8), model__detail_input="none", task__num_classes=5)
    model = nnx.eval_shape(task.create_model)
    assert model.head.classify.kernel.shape == (8, 5)
    assert isinstance(tasks.create(task.config), Segmentation)


def test_another_number_of_classes_is_refused():
    with pytest.raises(UserError, match=r"has 9 classes .* task\.num_classes is 5"):
        make_task(task__num_classes=5).train_batches(0)
