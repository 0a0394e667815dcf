"""What the log advises to runs on TPUs."""

from types import SimpleNamespace

import numpy as np
import pytest

from seaformer_jax.training import loop
from seaformer_jax.training.advice import advice
from tests.training import small


@pytest.mark.parametrize(
    ("chips", "images", "bn_groups"),
    [
        (4, 1024, 8),  # Two groups of 128 images on each chip.
        (256, 32768, 256),
        (256, 32768, 1),  # One group for all chips is chosen on purpose.
        (1, 128, 3),
    ],
)
def test_settings_that_suit_tpus_need_no_advice(chips, images, bn_groups):
    assert advice("tpu", chips, images, bn_groups) == ""


@pytest.mark.parametrize(
    ("chips", "images", "bn_groups", "better"),
    [
        (256, 32768, 128, 256),
        (4, 1024, 6, 4),
        (4, 1024, 7, 8),
        (8, 1024, 2, 8),
        # 640 images divide into 5, 10, 20, ..., but not into 15 groups of whole images.
        (5, 640, 16, 20),
    ],
)
def test_groups_that_span_chips(chips, images, bn_groups, better):
    line = advice("tpu", chips, images, bn_groups)
    assert line.startswith(f"model.bn_groups = {bn_groups} makes BatchNorm groups that span")
    assert f"; use {better} (docs/pods.md)" in line


def test_only_tpus_get_advice():
    assert advice("gpu", 256, 16384, 128) == advice("cpu", 256, 16384, 128) == ""


def test_the_log_has_the_advice_for_the_platform_of_the_mesh(monkeypatch, caplog):
    chips = np.array([SimpleNamespace(platform="tpu")] * 4)
    mesh = SimpleNamespace(devices=chips, size=4)
    monkeypatch.setattr(loop.meshes, "create_mesh", lambda: mesh)
    assert loop._create_mesh(small.config(batch_size=512, model__bn_groups=2)) is mesh
    assert [line[:21] for line in caplog.messages] == ["model.bn_groups = 2 m"]
