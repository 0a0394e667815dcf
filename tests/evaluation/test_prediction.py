"""Predictions for images on disk."""

import json

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
    prediction.classify(
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


def test_a_broken_image_is_an_error(paths, tmp_path):
    paths[3].write_bytes(b"broken")
    with pytest.raises(UserError, match=r"03\.png: cannot identify"):
        classify(paths, tmp_path)
