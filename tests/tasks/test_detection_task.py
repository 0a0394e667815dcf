"""The detection task: losses and gradients of mmdetection, and results that do not depend on batches."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from convert import weights
from seaformer_jax import config as configs
from seaformer_jax import create_model, tasks
from seaformer_jax import mesh as meshes
from seaformer_jax.detection import losses
from seaformer_jax.detection.anchors import anchors
from seaformer_jax.detection.postprocess import Detections
from seaformer_jax.evaluation import coco
from seaformer_jax.evaluation.evaluator import Evaluator
from seaformer_jax.models.variables import split_model
from tests import golden, toys
from tests.data.detection import files
from tests.detection.arrays import flat, levels


def task(**changes) -> tasks.Task:
    toys.register()
    config = configs.detection()
    values = {"model.name": "nano_detection", "batch_size": 4, "data.train_size": 9, "data.val_size": 5}
    config.update_from_flattened_dict(values | {"model.neck_width": 8, "model.tower_convs": 1} | changes)
    return tasks.create(config)


def small_images(folder, **changes) -> tasks.Task:
    """Returns the task on the three images of `files`, two of them in landscape."""
    for split in ("train", "val"):
        files.write(folder, files.content(), split)
    values = {
        "data.source": "coco",
        "data.root": str(folder),
        "data.images": "images/{split}",
        "data.train_split": "train",
        "data.val_split": "val",
        "data.scale": (96, 64),
        "data.buckets": ((64, 96), (96, 64)),
        "eval.scale": (96, 64),
        "eval.score_threshold": 0.0,
        "batch_size": 2,
    }
    return task(**values | changes)


def shapes(batch: dict) -> dict:
    return {name: (value.shape, value.dtype) for name, value in batch.items() if name != "skipped"}


def test_training_batches_have_the_shapes_that_are_compiled(tmp_path):
    for created in (task(), small_images(tmp_path)):
        expected = [shapes(batch) for batch in created.example_batches(created.config.batch_size)]
        batches = created.train_batches(0)
        found = [shapes(next(batches)) for _ in range(6)]
        batches.close()
        assert all(batch in found for batch in expected) and all(batch in expected for batch in found)


def test_a_fresh_detector_has_the_loss_of_mmdetection():
    """With 80 classes about 1.13 for the classes, because of the prior of 0.01, and less than 1 for the boxes."""
    model = create_model("seaformer_tiny", "detection", 80, drop_path_rate=0.0)
    batch = {
        "image": np.random.default_rng(0).integers(0, 256, (1, 128, 160, 3)).astype(np.uint8),
        "size": np.array([[128, 160]]),
        "boxes": np.float32([[[20, 30, 70, 90], [60, 10, 150, 100]]]),
        "labels": np.int32([[3, 70]]),
    }
    created = task(**{"task.num_classes": 8})
    graphdef, state = nnx.split(model)
    loss, parts = jax.jit(lambda s, b: created.loss(nnx.merge(graphdef, s), b, jax.random.key(0)))(
        state, batch
    )
    assert 1.05 < parts["class_loss"] < 1.25 and 0.3 < parts["box_loss"] < 1.5
    np.testing.assert_allclose(loss, parts["class_loss"] + parts["box_loss"], rtol=1e-6)


@pytest.mark.parametrize("mode", ["eval", pytest.param("train", marks=pytest.mark.slow)])
def test_losses_and_gradients_of_the_whole_detector_equal_mmdetection(mode):
    case = golden.load("detector_T_train_128x160", "detection")
    height, width = case["batch_shape"].tolist()
    shapes_ = golden.state_dict_shapes("det_T", "detection")
    for name in ("bbox_head.retina_cls.weight", "bbox_head.retina_cls.bias"):
        shapes_[name] = (27, *shapes_[name][1:])
    counters = {n.replace("running_var", "num_batches_tracked"): () for n in shapes_ if "running_var" in n}
    model = create_model("seaformer_tiny", "detection", 3, drop_path_rate=0.0)
    weights.from_torch(model, golden.fill(shapes_ | counters))
    graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    images = golden.images((4, 3, height, width), int(case["seed"])).transpose(0, 2, 3, 1)
    everywhere = jnp.ones((4, len(anchors(height, width))), bool)
    boxes, labels, valid = (jnp.asarray(case[f"gt_{name}"]) for name in ("boxes", "labels", "valid"))

    def compute(params, stats):
        model = nnx.merge(graphdef, params, stats)
        logits, deltas = model(images, train=mode == "train")
        wanted = losses.targets(anchors(height, width), everywhere, boxes, labels, valid)
        parts = (
            losses.focal_loss(logits, wanted.classes, wanted.weights) / wanted.divisor(),
            losses.box_loss(deltas, wanted) / wanted.divisor(),
        )
        return sum(parts), (parts, logits, deltas)

    step = jax.jit(jax.value_and_grad(compute, has_aux=True), compiler_options=golden.AS_USERS_COMPILE)
    (_, (parts, logits, deltas)), grads = step(nnx.to_pure_dict(params), nnx.to_pure_dict(stats))
    exact = mode == "eval"
    expected = case[f"{mode}_loss_cls"], case[f"{mode}_loss_box"]
    np.testing.assert_allclose(parts, expected, rtol=1e-5 if exact else 1e-4)
    for found, name in ((logits, "cls"), (deltas, "box")):
        wanted = flat(levels(case, f"{mode}_{name}"))
        np.testing.assert_allclose(found[:1], wanted, rtol=0, atol=2e-5 if exact else 2e-4)
    named = weights.to_torch(nnx.merge(graphdef, grads, stats))
    norms = np.array([np.linalg.norm(named[name].astype(np.float64)) for name in case["param_names"]])
    large = case[f"{mode}_grad_norms"] >= 1e-6
    np.testing.assert_allclose(norms[large], case[f"{mode}_grad_norms"][large], rtol=1e-3 if exact else 1e-2)
    assert (norms[~large] < 1e-4).all()


def results(created: tasks.Task, model: nnx.Module) -> tuple[dict, list[dict]]:
    evaluator = Evaluator(
        nnx.graphdef(model), created.eval_metrics, created.eval_batches, meshes.create_mesh()
    )
    metrics = evaluator(*split_model(model))
    found = metrics["detections"].of_images()
    return created.summarize(metrics), created._judge(found).detections


def test_results_do_not_depend_on_the_batch_size(tmp_path):
    model = small_images(tmp_path).create_model()
    (one, boxes), (three, same_boxes) = (
        results(small_images(tmp_path, **{"eval.batch_size": size}), model) for size in (1, 3)
    )
    assert one["images"] == three["images"] == 3 and len(boxes) == len(same_boxes) > 50
    assert [b["image_id"] for b in boxes] == [b["image_id"] for b in same_boxes]
    assert one["AP"] == pytest.approx(three["AP"], abs=1e-6)
    scores = [np.sort([b["score"] for b in found]) for found in (boxes, same_boxes)]
    np.testing.assert_allclose(*scores, atol=1e-6)


def test_results_do_not_depend_on_the_padding(tmp_path):
    model = small_images(tmp_path).create_model()
    (_, boxes), (_, padded) = (
        results(small_images(tmp_path, **{"eval.pad_multiple": multiple}), model) for multiple in (32, 160)
    )
    scores = [np.sort([b["score"] for b in found]) for found in (boxes, padded)]
    assert len(boxes) > 50
    np.testing.assert_allclose(*scores, atol=1e-6)


def test_the_twelve_numbers_are_percent_and_undefined_ones_are_left_out(tmp_path):
    created = small_images(tmp_path)
    summary, _ = results(created, created.create_model())
    assert set(summary) <= {*coco.NAMES, "images"} and "AP" in summary
    assert "APl" not in summary  # No object is so large.


def test_a_perfect_detector_scores_one_hundred(tmp_path, monkeypatch):
    """Boxes come back in the pixels of the original image and with the right identifiers."""
    created = small_images(tmp_path)
    truth = {2: [], 0: [[1.5, 2, 31.5, 22.5]], 1: [[5, 6, 25, 36]]}
    labels = {2: 0, 0: 0, 1: 2}
    table = np.array([(truth[i] or [[0, 0, 0, 0]])[0] for i in range(3)], np.float32)

    def detect(model, batch):
        index = jnp.maximum(batch["index"], 0)
        scores = jnp.asarray([0.9 if truth[i] else 0.0 for i in range(3)])[index, None]
        classes = jnp.asarray([labels[i] for i in range(3)])[index, None]
        return Detections(jnp.asarray(table)[index][:, None], scores, classes)

    monkeypatch.setattr(created, "detect", detect)
    summary, _ = results(created, created.create_model())
    assert summary["AP"] == pytest.approx(100)


def test_detections_are_decoded_in_the_pixels_of_the_original_image(tmp_path):
    """A model whose only positive anchor is known."""
    created = small_images(tmp_path)
    height, width = 64, 96
    index = 1000

    class Known(nnx.Module):
        anchor_scale = 4.0
        backbone = SimpleNamespace(takes_sizes=True)

        def __call__(self, images, train, sizes):
            count = len(anchors(height, width))
            logits = jnp.full((len(images), count, 3), -9.0).at[:, index, 2].set(3.0)
            return logits, jnp.zeros((len(images), count, 4))

    batch = {
        "image": np.zeros((1, height, width, 3), np.uint8),
        "size": np.array([[60, 90]]),
        "scale": np.float32([[1.5, 2.0]]),
    }
    created.config.eval.score_threshold = 0.05
    found = created.detect(Known(), batch)
    box = np.clip(anchors(height, width)[index], 0, [90, 60, 90, 60]) / [2.0, 1.5, 2.0, 1.5]
    np.testing.assert_allclose(found.boxes[0, 0], box, rtol=1e-6)
    assert found.labels[0, 0] == 2 and np.count_nonzero(found.scores) == 1


def test_pictures_and_lists_of_boxes(tmp_path):
    created = small_images(tmp_path / "data", **{"eval.draw_threshold": 0.0})
    model = created.create_model()
    paths = sorted((tmp_path / "data/images/val").glob("*.png"))
    (tmp_path / "out").mkdir()
    assert created.predict(model, paths, tmp_path / "out", heatmap=False) == 3
    assert sorted(p.name for p in (tmp_path / "out").glob("*.png")) == [f"{n}_boxes.png" for n in "abc"]
    (tmp_path / "shown").mkdir()
    created.show(model, tmp_path / "shown")
    assert len(list((tmp_path / "shown").glob("*.png"))) == 3
