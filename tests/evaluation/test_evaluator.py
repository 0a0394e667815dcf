"""No result of an evaluation depends on the batch size, and top-5 is PyTorch's."""

import json

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from PIL import Image

from seaformer_jax import mesh, tasks
from seaformer_jax.errors import UserError
from seaformer_jax.evaluation.evaluator import Evaluator
from seaformer_jax.training import state
from tests.training import nano

SIZES = (1, 7, 32)


@pytest.fixture(scope="module")
def model() -> nnx.Module:
    return tasks.create(nano.get_config()).create_model()


def evaluate(model: nnx.Module, batch_size: int):
    config = nano.get_config()
    config.eval.batch_size = batch_size
    task = tasks.create(config)
    evaluator = Evaluator(nnx.graphdef(model), task.count, task.eval_batches, mesh.create_mesh())
    return task, evaluator(*state.split_model(model))


@pytest.fixture(scope="module")
def results(model):
    return {size: evaluate(model, size) for size in SIZES}


@pytest.mark.parametrize("size", SIZES[1:])
def test_counts_do_not_depend_on_the_batch_size(results, size):
    (_, one), (_, many) = results[1], results[size]
    for name in ("top1", "top5"):
        assert one[name] == many[name]
    np.testing.assert_array_equal(one["confusion"].counts, many["confusion"].counts)
    assert abs(one["loss"].compute() - many["loss"].compute()) < 1e-6


def test_counts_equal_a_plain_loop(model, results):
    """37 images one by one, with PyTorch's top-k and cross-entropy."""
    task, counts = results[7]
    logits, labels = [], []
    for batch in task.eval_batches():
        valid = batch["mask"]
        logits.append(np.asarray(model(task._normalize(batch["image"])))[valid])
        labels.append(batch["label"][valid])
    logits, labels = torch.tensor(np.concatenate(logits)), torch.tensor(np.concatenate(labels)).long()
    assert len(labels) == task.config.data.val_size
    top5 = (logits.topk(5).indices == labels[:, None]).any(1)
    summary = task.summarize(counts)
    assert summary["images"] == len(labels)
    assert summary["top5"] == pytest.approx(100 * top5.double().mean().item())
    assert summary["top1"] == pytest.approx(100 * (logits.argmax(1) == labels).double().mean().item())
    assert summary["loss"] == pytest.approx(
        torch.nn.functional.cross_entropy(logits, labels).item(), abs=1e-5
    )
    confusion = np.zeros_like(counts["confusion"].counts)
    np.add.at(confusion, (labels.numpy(), logits.argmax(1).numpy()), 1)
    np.testing.assert_array_equal(counts["confusion"].counts, confusion)


def test_the_report_lists_every_class(results, tmp_path):
    task, counts = results[32]
    task.write_report(counts, tmp_path)
    lines = (tmp_path / "per_class.md").read_text().splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:]] == list(task.class_names)
    assert sum(int(line.split(" | ")[1]) for line in lines[2:]) == task.config.data.val_size
    assert (tmp_path / "confusion_matrix.png").stat().st_size > 5000


def test_an_empty_split_is_an_error(model):
    task = tasks.create(nano.get_config())
    nothing = Evaluator(nnx.graphdef(model), task.count, lambda: (b for b in ()), mesh.create_mesh())
    with pytest.raises(UserError, match="no images"):
        nothing(*state.split_model(model))


def test_predictions_are_the_softmax_of_each_image(model, tmp_path):
    """More images than a batch, so that one is padded."""
    task = tasks.create(nano.get_config())
    paths = []
    for index in range(18):
        paths.append(tmp_path / f"{index:02d}.png")
        Image.fromarray(task.val_source[index]["image"]).save(paths[-1])
    task.predict(model, paths, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [row["image"] for row in rows] == [str(path) for path in paths]
    crop = task._eval_transform().map
    for index in (0, 17):
        image = crop(task.val_source[index])["image"][None]
        expected = np.asarray(jax.nn.softmax(model(task._normalize(image))))[0]
        best = np.argsort(-expected)[:5]
        assert [top["label"] for top in rows[index]["top"]] == [task.class_names[i] for i in best]
        np.testing.assert_allclose([t["probability"] for t in rows[index]["top"]], expected[best], atol=1e-5)
    assert (tmp_path / "contact_sheet.png").exists()
