"""Predictions for images on disk."""

import json
import logging
import re

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from seaformer_jax.data.classification.transforms import EvalTransform
from seaformer_jax.errors import UserError
from seaformer_jax.evaluation import prediction

NAMES = [f"class {index}" for index in range(7)]


class Brightness(nnx.Module):
    """Logits [B, 7] that are -3 to 4 times the mean of the image."""

    def __init__(self):
        self.slope = nnx.Param(jnp.linspace(-3, 4, 7))

    def __call__(self, images, train):
        assert not train
        return images.mean((1, 2, 3))[:, None] * self.slope[...]


@pytest.fixture
def paths(tmp_path):
    """Eighteen images of rising brightness and different sizes: a full batch, and two images of the next."""
    found = []
    for index in range(18):
        found.append(tmp_path / f"{index:02}.png")
        Image.fromarray(np.full((30 + index, 40, 3), 10 * index, np.uint8)).save(found[-1])
    return found


def classify(paths, folder):
    return prediction.classify(
        Brightness(),
        paths,
        folder,
        EvalTransform(16, 1.0).map,
        lambda x: x.astype(jnp.float32) / 100 - 0.8,
        NAMES,
    )


def test_every_image_has_its_five_likeliest_labels(paths, tmp_path):
    classify(paths, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [row["image"] for row in rows] == [str(path) for path in paths]
    for index, row in enumerate(rows):
        logits = (0.1 * index - 0.8) * np.linspace(-3, 4, 7)
        expected = np.exp(logits) / np.exp(logits).sum()
        assert len(row["top"]) == 5
        probabilities = [entry["probability"] for entry in row["top"]]
        assert probabilities == pytest.approx(sorted(expected, reverse=True)[:5], abs=2e-6)
        for entry in row["top"]:
            assert expected[NAMES.index(entry["label"])] == pytest.approx(entry["probability"], abs=2e-6)
    assert rows[0]["top"][0]["label"] == "class 0" and rows[17]["top"][0]["label"] == "class 6"


def test_a_contact_sheet_is_drawn(paths, tmp_path):
    classify(paths, tmp_path)
    width, height = Image.open(tmp_path / "contact_sheet.png").size
    assert width > 1.5 * height  # Six columns, three rows.


def test_a_broken_image_costs_only_itself(paths, tmp_path, caplog):
    classify(paths, tmp_path)
    whole = (tmp_path / "predictions.jsonl").read_text().splitlines()
    for index in (0, 3):
        paths[index].write_bytes(b"broken")
    paths[17].unlink()
    with caplog.at_level(logging.WARNING, logger="absl"):
        assert classify(paths, tmp_path) == 15
    assert (tmp_path / "predictions.jsonl").read_text().splitlines() == [*whole[1:3], *whole[4:17]]
    assert [re.sub(r"skipped: .*/(\d+)\.png: (\w+).*", r"\1 \2", line) for line in caplog.messages] == [
        "00 cannot",
        "03 cannot",
        "17 cannot",
    ]


def test_no_image_can_be_read(paths, tmp_path):
    for path in paths:
        path.write_bytes(b"broken")
    with pytest.raises(UserError, match="none of the images can be read"):
        classify(paths, tmp_path)
    assert not (tmp_path / "predictions.jsonl").exists()
