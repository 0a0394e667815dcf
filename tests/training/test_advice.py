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
        (4, 64, 1),  # 16 images of 4 bands on a chip are half of the lanes.
        (4, 32, 1),  # 8 images are small.
        (4, 256, 1),
    ],
)
def test_settings_that_suit_tpus_need_no_advice(chips, images, bn_groups):
    assert list(advice("tpu", chips, images, [224], bn_groups)) == []


@pytest.mark.parametrize(
    ("images", "heights", "better"),
    [
        (12, [224], 10),
        (96, [224], 128),  # 64 is as near.
        (192, [224], 256),
        (150, [224], 128),
        (3, [512], 4),
        (12, [512, 224], 16),
        (2, [800, 1344], 16),
    ],
)
def test_images_that_leave_lanes_empty(images, heights, better):
    (line,) = advice("tpu", 4, 4 * images, heights, bn_groups=1)
    assert line.startswith(f"{images} images on each of 4 TPU chips leave lanes empty")
    assert f"; {better} on each would not" in line


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
    (line,) = advice("tpu", chips, images, [224], bn_groups)
    assert line.startswith(f"model.bn_groups = {bn_groups} makes BatchNorm groups that span")
    assert f"; use {better} (docs/pods.md)" in line


def test_only_tpus_get_advice():
    assert not [*advice("gpu", 256, 16384, [224], 128), *advice("cpu", 4, 384, [224], 1)]


def test_the_log_has_the_advice_for_the_platform_of_the_mesh(monkeypatch, caplog):
    chips = np.array([SimpleNamespace(platform="tpu")] * 4)
    mesh = SimpleNamespace(devices=chips, size=4)
    monkeypatch.setattr(loop.meshes, "create_mesh", lambda: mesh)
    assert loop._create_mesh(small.config(batch_size=384, model__bn_groups=2), [224]) is mesh
    assert [line[:21] for line in caplog.messages] == ["96 images on each of ", "model.bn_groups = 2 m"]
