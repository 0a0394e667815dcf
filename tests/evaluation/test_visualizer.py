"""The files that predict writes for segmentation, and the comparison pictures of evaluate."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from seaformer_jax.data import images
from seaformer_jax.data.segmentation.buckets import Buckets
from seaformer_jax.data.segmentation.transforms import SegmentationEvalTransform
from seaformer_jax.errors import UserError
from seaformer_jax.evaluation import inference, pictures
from seaformer_jax.evaluation.visualizer import Visualizer

PALETTE = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
SETTINGS = {"mode": "whole", "flip": False, "scale": (96, 96), "size_divisor": 32, "scales": (1.0,)}


class Brightest(nnx.Module):
    """The class of a pixel is its brightest channel."""

    def __init__(self):
        self.scale = nnx.Param(jnp.float32(2))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.scale[...] * x[:, 4::8, 4::8]


def predict(model: nnx.Module, batch: dict) -> jax.Array:
    return inference.predict(
        lambda images, sizes: (model(images), -(-sizes // 8)),
        [batch["image"] / 255],
        [batch["size"]],
        batch["label_size"],
        batch["label"].shape[1:],
        SETTINGS,
    )


def attention(model: nnx.Module, batch: dict) -> tuple[jax.Array, jax.Array]:
    """Larger values on the right, and none on padding, at 1/32 of the image's size."""
    _, height, width, _ = batch["image"].shape
    sizes = batch["size"] // 32
    columns = jnp.arange(width // 32) / (sizes[:, 1:] - 1)
    return jnp.repeat((columns * (columns <= 1))[:, None], height // 32, 1), sizes


@pytest.fixture(scope="module")
def visualizer() -> Visualizer:
    shapes = Buckets([(96, 96), (50, 200), (301, 144), (96, 160)], SegmentationEvalTransform(SETTINGS))
    return Visualizer(Brightest(), shapes, predict, attention, ("red", "green", "blue"), PALETTE)


def halves(height: int, width: int, left: int, right: int) -> np.ndarray:
    """An image whose left half is bright in channel `left` and whose right half in channel `right`."""
    image = np.full((height, width, 3), 20, np.uint8)
    image[:, : width // 2, left] = 220
    image[:, width // 2 :, right] = 220
    return image


@pytest.mark.parametrize("size", [(96, 96), (50, 200), (301, 144)])
def test_classes_at_the_image_s_own_size(visualizer, size):
    classes = visualizer.classes(halves(*size, 2, 1))
    assert classes.shape == size and classes.dtype == np.uint8
    margin = size[1] // 6  # The resize blurs the border between the halves.
    assert (classes[:, : size[1] // 2 - margin] == 2).all()
    assert (classes[:, size[1] // 2 + margin :] == 1).all()


@pytest.fixture(scope="module")
def written(visualizer, tmp_path_factory) -> tuple[pathlib.Path, list[pathlib.Path]]:
    place = tmp_path_factory.mktemp("predict")
    paths = [place / folder / "street.png" for folder in "ab"]
    for path, channels in zip(paths, ((2, 1), (2, 2)), strict=True):
        path.parent.mkdir()
        Image.fromarray(halves(96, 160, *channels)).save(path)
    (place / "out").mkdir()
    visualizer.write(paths, place / "out", heatmap=True)
    return place / "out", paths


def test_files_of_every_image(written):
    folder, _ = written
    kinds = ("heatmap", "mask", "overlay")
    expected = {f"{name}_{kind}.png" for name in ("street", "street-2") for kind in kinds}
    assert {path.name for path in folder.iterdir()} == expected | {"legend.png", "predictions.jsonl"}


def test_mask_and_overlay_are_of_the_image(visualizer, written):
    folder, paths = written
    image = images.decode(paths[0], "street")
    classes = visualizer.classes(image)
    assert np.array_equal(np.asarray(Image.open(folder / "street_mask.png")), classes)
    overlay = np.asarray(Image.open(folder / "street_overlay.png"))
    assert np.array_equal(overlay, pictures.overlay(image, classes, PALETTE))


def test_shares_of_the_classes(visualizer, written):
    folder, paths = written
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert [row["image"] for row in rows] == [str(path) for path in paths]
    assert [row["mask"] for row in rows] == ["street_mask.png", "street-2_mask.png"]
    assert rows[1]["classes"] == {"blue": 1.0}
    classes = visualizer.classes(images.decode(paths[0], "street"))
    assert rows[0]["classes"] == pytest.approx(
        {"blue": (classes == 2).mean(), "green": (classes == 1).mean()}, abs=1e-6
    )


def test_heat_map_shows_the_attention(written):
    heat = np.asarray(Image.open(written[0] / "street_heatmap.png")).astype(int)
    assert heat.shape == (96, 160, 3)
    assert heat[40, 155, 0] > heat[40, 155, 2]  # Red on the right,
    assert heat[40, 4, 2] > heat[40, 4, 0]  # blue on the left.


def test_legend_names_the_classes_that_occur(written):
    legend = np.asarray(Image.open(written[0] / "legend.png"))
    rows = {k: np.flatnonzero((legend == PALETTE[k]).all(-1).any(1)) for k in range(3)}
    assert rows[2].max() < rows[1].min()  # The legend starts with the most frequent class, blue.
    assert len(rows[0]) == 0


def test_no_heat_maps_unless_wanted(visualizer, written, tmp_path):
    visualizer.write(written[1][:1], tmp_path, heatmap=False)
    assert not list(tmp_path.glob("*heatmap*"))


def test_comparison_has_the_labels_on_the_left(visualizer, tmp_path):
    image = halves(96, 96, 0, 1)
    labels = np.full((96, 96), 255, np.uint8)
    visualizer.comparison(image, labels, tmp_path / "x.png")
    left, right = np.split(np.asarray(Image.open(tmp_path / "x.png")), 2, axis=1)
    assert np.array_equal(left, image)
    assert np.array_equal(right, pictures.overlay(image, visualizer.classes(image), PALETTE))


def test_a_broken_image_costs_only_itself(visualizer, tmp_path):
    paths = [tmp_path / folder / "street.png" for folder in "abc"]
    for path in paths:
        path.parent.mkdir()
        Image.fromarray(halves(96, 160, 2, 1)).save(path)
    paths[1].write_bytes(b"broken")
    assert visualizer.write(paths, tmp_path, heatmap=False) == 2
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    # The names do not depend on which images can be read.
    assert [(row["image"], row["mask"]) for row in rows] == [
        (str(paths[0]), "street_mask.png"),
        (str(paths[2]), "street-3_mask.png"),
    ]
    paths[0].write_bytes(b"broken")
    with pytest.raises(UserError, match="none of the images can be read"):
        visualizer.write(paths[:2], tmp_path, heatmap=False)
