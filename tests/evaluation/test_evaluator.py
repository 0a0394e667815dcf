"""The evaluator: its numbers do not depend on the batch size, and unreadable images are not counted."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from seaformer_jax import config as configs
from seaformer_jax import mesh as meshes
from seaformer_jax.errors import UserError
from seaformer_jax.evaluation.evaluator import Evaluator
from seaformer_jax.models.variables import split_model
from seaformer_jax.tasks.classification import Classification

CLASSES = 8


class Linear(nnx.Module):
    """One linear layer on the pixels. It is often wrong, as the tests of the metrics need."""

    def __init__(self, classes: int = CLASSES):
        kernel = np.random.default_rng(1).standard_normal((32 * 32 * 3, classes)) / 32
        self.kernel = nnx.Param(jnp.asarray(kernel, jnp.float32))

    def __call__(self, images, train=False):
        return images.reshape(len(images), -1) @ self.kernel[...]


def make_task(**changes) -> Classification:
    config = configs.default()
    fixed = {"data.image_size": 32, "data.val_size": 45, "data.train_size": 45, "eval.crop_fraction": 1.0}
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    config.update_from_flattened_dict(fixed | changes)
    return Classification(config)


def evaluate(task: Classification) -> dict:
    model = Linear(task.num_classes)
    evaluator = Evaluator(nnx.graphdef(model), task.eval_metrics, task.eval_batches, meshes.create_mesh())
    return evaluator(*split_model(model))


@pytest.fixture(scope="module")
def expected():
    """Metrics and confusion matrix of a plain loop over the images, in float64."""
    task = make_task()
    data, kernel = task.config.data, np.asarray(Linear().kernel[...], np.float64)
    losses, ranks, confusion = [], [], np.zeros((CLASSES, CLASSES), int)
    for element in (task.val_source[i] for i in range(45)):
        image = (element["image"] / 255 - data.mean) / data.std
        logits = image.reshape(-1) @ kernel
        own = logits[element["label"]]
        losses.append(np.log(np.exp(logits - own).sum()))
        ranks.append((logits > own).sum())
        confusion[element["label"], logits.argmax()] += 1
    return {
        "loss": np.mean(losses),
        "top1": 100 * np.mean(np.array(ranks) == 0),
        "top5": 100 * np.mean(np.array(ranks) < 5),
        "images": 45,
    }, confusion


@pytest.mark.parametrize("batch_size", [1, 7, 32])
def test_no_number_depends_on_the_batch_size(expected, batch_size):
    numbers, confusion = expected
    task = make_task(eval__batch_size=batch_size)
    counts = evaluate(task)
    found = task.summarize(counts)
    # Any two batch sizes then differ by at most 1e-6.
    assert found.pop("loss") == pytest.approx(numbers["loss"], abs=5e-7)
    assert found == {name: numbers[name] for name in ("top1", "top5", "images")}
    assert 0 < found["top1"] < found["top5"] < 100
    assert np.array_equal(counts["confusion"].counts, confusion)
    assert counts["confusion"].counts.dtype == counts["top1"].count.dtype == np.int64
    assert counts["loss"].total.dtype == np.float64


@pytest.fixture
def folder(tmp_path):
    """Two classes of four images each, in both splits. The last image of each class is broken."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(4):
                path = tmp_path / split / name / f"{index}.png"
                Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(path)
            path.write_bytes(b"broken")
    return tmp_path


def make_folder_task(folder, **changes) -> Classification:
    changes |= {"data__source": "folder", "data__root": str(folder), "task__num_classes": 2}
    return make_task(eval__batch_size=3, **changes)


def test_broken_images_are_left_out_and_told_of(folder, caplog):
    task = make_folder_task(folder, data__on_corrupt="skip")
    with caplog.at_level(logging.WARNING, logger="absl"):
        counts = evaluate(task)
    assert task.summarize(counts)["images"] == 6
    assert counts["confusion"].counts.sum() == 6
    assert "evaluation skipped 2 unreadable images" in caplog.messages


def test_a_broken_image_ends_the_evaluation(folder):
    with pytest.raises(UserError, match=r"val/a/3\.png: cannot identify"):
        evaluate(make_folder_task(folder, data__on_corrupt="error"))


def test_nothing_to_evaluate_is_an_error():
    class Empty:
        def close(self):
            self.closed = True

        def __iter__(self):
            return iter(())

    batches = Empty()
    evaluator = Evaluator(None, None, lambda: batches, meshes.create_mesh())
    with pytest.raises(UserError, match=r"no images; check data\.root and data\.val_split"):
        evaluator({}, {})
    assert batches.closed


def test_weights_are_not_changed():
    model = Linear()
    params, stats = split_model(model)
    before = jax.tree.map(np.array, params)
    task = make_task()
    evaluator = Evaluator(nnx.graphdef(model), task.eval_metrics, task.eval_batches, meshes.create_mesh())
    first, second = evaluator(params, stats), evaluator(params, stats)
    assert np.array_equal(params["kernel"], before["kernel"])
    assert task.summarize(first) == task.summarize(second)
