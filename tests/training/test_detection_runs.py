"""Runs of detectors: exact resume with several shapes of batches, and several processes."""

import numpy as np
import pytest
from absl import flags

from experiments.forked import free_port
from seaformer_jax import tasks
from seaformer_jax.training import checkpoint, loop
from tests import forked
from tests.data.detection import files
from tests.paths import REPOSITORY
from tests.training import nano, small

CHANGES = {
    "batch_size": 2,
    "checkpoint.every": 0,
    "eval.every": 0,
    "data.source": "coco",
    "data.images": "images/{split}",
    "data.scale": (96, 64),
    "data.buckets": ((64, 96), (96, 64)),
    "eval.scale": (96, 64),
}


def run(folder, data, steps: int) -> list[float]:
    """Trains up to step `steps` in `folder`; returns the losses so far."""
    flags.FLAGS.mark_as_parsed()
    config = nano.get_detection_config()
    config.update_from_flattened_dict(CHANGES | {"data.root": str(data), "total_steps": steps})
    task = tasks.create(config)
    folder.mkdir(exist_ok=True)
    loop.train(config, task, task.create_model(), folder)
    return list(small.curve(folder, "train/loss").values())


def test_a_resumed_run_repeats_the_uninterrupted_one(tmp_path):
    for split in ("train", "val"):
        files.write(tmp_path, files.content(), split)
    whole = run(tmp_path / "whole", tmp_path, 6)
    run(tmp_path / "parts", tmp_path, 3)
    assert run(tmp_path / "parts", tmp_path, 6) == whole and len(whole) == 6
    weights = [checkpoint.load_weights(tmp_path / name, use_ema=False) for name in ("whole", "parts")]
    assert weights[0][0] == weights[1][0] == 6 and small.equal(weights[0][1:], weights[1][1:])


@pytest.mark.slow
def test_two_processes_train_and_evaluate_as_one(tmp_path, compile_cache):
    recipe = f"{REPOSITORY}/experiments/campaign/recipe.py:detection"
    options = [
        f"--config.compilation_cache={compile_cache}",
        "--config.total_steps=5",
        "--config.eval.every=0",
    ]
    options += ["--config.eval.score_threshold=0", "--config.eval.batch_size=6"]

    def start(folder, devices, *more):
        arguments = ["--config", recipe, "--workdir", folder, *options, *more]
        return forked.Command("seaformer_jax.train", arguments, devices, merged=True)

    small.finish(start(tmp_path / "one", 2))
    port = free_port()
    shared = ["--config.distributed.enabled=True", f"--config.distributed.coordinator=localhost:{port}"]
    shared += ["--config.distributed.num_processes=2"]
    two = [start(tmp_path / "two", 1, *shared, f"--config.distributed.process_id={i}") for i in range(2)]
    for process in two:
        small.finish(process)
    for name in ("train/loss", "val/AP", "val/AP50", "val/AR100", "val/images"):
        found, expected = (small.curve(tmp_path / folder, name) for folder in ("two", "one"))
        assert found.keys() == expected.keys() and expected
        np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-4, atol=1e-4)
