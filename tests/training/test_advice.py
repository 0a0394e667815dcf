"""What the log advises to runs on TPUs."""

from types import SimpleNamespace

import numpy as np
import pytest

from seaformer_jax.training import loop
from seaformer_jax.training.advice import advice
from tests.training import small


@pytest.mark.parametrize(
    ("chips", "batch_size", "microbatches", "bn_groups"),
    [
        (4, 1024, 1, 8),  # Two groups of 128 images on each chip.
        (256, 32768, 1, 256),
        (256, 32768, 1, 1),  # One group for all chips is chosen on purpose.
        (8, 4096, 4, 8),
        (1, 128, 1, 3),
    ],
)
def test_settings_that_suit_tpus_need_no_advice(chips, batch_size, microbatches, bn_groups):
    assert advice("tpu", chips, batch_size, microbatches, bn_groups) == []


@pytest.mark.parametrize(
    ("chips", "batch_size", "microbatches", "images", "better"),
    [
        (256, 16384, 1, 64, "32768, or fewer chips"),
        (4, 32, 1, 8, "512, or fewer chips"),
        (8, 1024, 2, 64, "2048, or fewer chips"),
        (4, 768, 1, 192, "512 or 1024"),
        (8, 5120, 2, 320, "4096 or 6144"),
    ],
)
def test_a_batch_that_leaves_lanes_empty(chips, batch_size, microbatches, images, better):
    (line,) = advice("tpu", chips, batch_size, microbatches, bn_groups=1)
    assert line.startswith(f"batch_size = {batch_size} puts {images} images on each of {chips} TPU chips")
    assert f"; use {better} (docs/accelerators.md)" in line


@pytest.mark.parametrize(
    ("chips", "batch_size", "microbatches", "bn_groups", "better"),
    [
        (256, 32768, 1, 128, 256),
        (4, 1024, 1, 6, 4),
        (4, 1024, 1, 7, 8),
        (8, 4096, 4, 2, 8),
        # 640 images divide into 5, 10, 20, ..., but not into 15 groups of whole images.
        (5, 640, 1, 16, 20),
    ],
)
def test_groups_that_span_chips(chips, batch_size, microbatches, bn_groups, better):
    (line,) = advice("tpu", chips, batch_size, microbatches, bn_groups)
    assert line.startswith(f"model.bn_groups = {bn_groups} makes BatchNorm groups that span")
    assert f"; use {better} (docs/accelerators.md)" in line


def test_both_at_once_and_on_tpus_only():
    assert len(advice("tpu", 256, 16384, 1, 128)) == 2
    assert advice("gpu", 256, 16384, 1, 128) == advice("cpu", 256, 16384, 1, 128) == []


def test_the_log_has_the_advice_for_the_platform_of_the_mesh(monkeypatch, caplog):
    chips = np.array([SimpleNamespace(platform="tpu")] * 4)
    mesh = SimpleNamespace(devices=chips, size=4)
    monkeypatch.setattr(loop.meshes, "create_mesh", lambda: mesh)
    assert loop._create_mesh(small.config(batch_size=512, model__bn_groups=2)) is mesh
    assert [line[:21] for line in caplog.messages] == ["model.bn_groups = 2 m"]
