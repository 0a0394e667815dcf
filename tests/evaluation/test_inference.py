"""Class maps against a plain PyTorch version of mmseg's inference, which resizes and adds up full-size maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from seaformer_jax.evaluation import inference

CLASSES, CROP, STRIDE = 6, (40, 56), (27, 30)
INPUTS = ((72, 100), (53, 61))  # The second: no side is a multiple of 8, and two windows cover each.
LABELS = np.array([[60, 90], [100, 77]])
SETTINGS = {"slide_crop": CROP, "slide_stride": STRIDE}
KERNEL = np.random.default_rng(1).standard_normal((12, CLASSES)).astype(np.float32)


def model(images: jax.Array) -> jax.Array:
    """Logits [B, ceil(h/8), ceil(w/8), CLASSES] from four pixels of every 8x8 cell: cheap, and not symmetric."""
    batch, height, width, _ = images.shape
    padded = jnp.pad(images, ((0, 0), (0, -height % 8), (0, -width % 8), (0, 0)), "edge")
    cells = padded.reshape(batch, padded.shape[1] // 8, 8, padded.shape[2] // 8, 8, 3)
    picked = [cells[:, :, i, :, j] for i, j in ((0, 0), (3, 1), (4, 6), (7, 2))]
    return jnp.tanh(jnp.concatenate(picked, -1) @ KERNEL)


def padded_model(images: jax.Array, sizes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """As `model` for each image alone: `edge` padding begins at the image's own border."""

    def repeat_border(image, size):
        return image[
            jnp.ix_(*(jnp.minimum(jnp.arange(n), size[k] - 1) for k, n in enumerate(image.shape[:2])))
        ]

    return model(jax.vmap(repeat_border)(images, sizes)), -(-sizes // 8)


def predict(images, shape=(128, 128), image_sizes=None, labels=LABELS, model=padded_model, **settings):
    """Runs `inference.predict` on images that are padded to their own shapes, or to the sizes given."""
    own = [np.tile(x.shape[1:3], (len(x), 1)) for x in images]
    return inference.predict(model, images, image_sizes or own, labels, shape, SETTINGS | settings)


def torch_model(images: torch.Tensor) -> torch.Tensor:
    """Logits of `model` resized to the input, as in mmseg's `encode_decode`; images [B, 3, h, w]."""
    logits = model(jnp.asarray(images.permute(0, 2, 3, 1).numpy()))
    return resize(torch.from_numpy(np.array(logits)).permute(0, 3, 1, 2), images.shape[2:])


def resize(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def slide(images: torch.Tensor) -> torch.Tensor:
    """Mean of the logits of overlapping windows; the last windows are moved back to end at the border."""
    (height, width), (ch, cw) = images.shape[2:], CROP
    total, count = torch.zeros(1, CLASSES, height, width), torch.zeros(1, 1, height, width)
    for row in range(max(height - ch + STRIDE[0] - 1, 0) // STRIDE[0] + 1):
        for column in range(max(width - cw + STRIDE[1] - 1, 0) // STRIDE[1] + 1):
            bottom, right = min(row * STRIDE[0] + ch, height), min(column * STRIDE[1] + cw, width)
            top, left = max(bottom - ch, 0), max(right - cw, 0)
            window = np.s_[:, :, top:bottom, left:right]
            total[window] += torch_model(images[window])
            count[window] += 1
    return total / count


def expected_classes(images: list[np.ndarray], size: tuple[int, int], mode: str, flip: bool) -> np.ndarray:
    """Class map [H, W] from the sum of the probabilities of all scales and flips."""
    probabilities = []
    for image in images:
        x = torch.from_numpy(image[None].transpose(0, 3, 1, 2).copy())
        look = slide if mode == "slide" else torch_model
        probabilities.append(resize(look(x), size).softmax(1))
        if flip:
            probabilities.append(resize(look(x.flip(3)), size).softmax(1).flip(3))
    return sum(probabilities).argmax(1)[0].numpy()


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((2, *size, 3)).astype(np.float32) for size in INPUTS]


@pytest.mark.parametrize("scales", [1, 2])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("mode", ["whole", "slide"])
def test_classes_equal_those_of_mmseg(images, mode, flip, scales):
    images = images[:scales]
    found = np.asarray(jax.jit(lambda *x: predict(x, mode=mode, flip=flip))(*images))
    for row, size in enumerate(LABELS.tolist()):
        expected = expected_classes([x[row] for x in images], size, mode, flip)
        assert len(np.unique(expected)) == CLASSES
        # Rounding can separate two equal scores.
        assert (found[row, : size[0], : size[1]] != expected).mean() < 1e-4


@pytest.mark.parametrize(("mode", "flip"), [("whole", True), ("slide", False), ("slide", True)])
def test_padded_images_of_several_sizes_in_one_batch(mode, flip):
    """As alone; the padding is not even 0."""
    sizes = np.array([[72, 100], [53, 61], [39, 80], [81, 30]])
    labels = np.array([[60, 90], [100, 77], [39, 128], [70, 25]])
    rng = np.random.default_rng(5)
    images = rng.standard_normal((4, 96, 110, 3)).astype(np.float32)
    found = np.asarray(
        jax.jit(lambda x: predict([x], image_sizes=[sizes], labels=labels, mode=mode, flip=flip))(images)
    )
    for image, size, label, classes in zip(images, sizes, labels, found, strict=True):
        expected = expected_classes([image[: size[0], : size[1]]], tuple(label), mode, flip)
        assert (classes[: label[0], : label[1]] != expected).mean() < 1e-4


def test_a_window_larger_than_the_image_is_the_whole_image(images):
    large = {"slide_crop": (500, 500), "slide_stride": (300, 300), "flip": False}
    assert np.array_equal(*(predict(images[1:], mode=mode, **large) for mode in ("slide", "whole")))


def test_no_image_depends_on_the_others(images):
    both = predict(images, mode="whole", flip=True)
    for row in range(2):
        rows = slice(row, row + 1)
        alone = predict([x[rows] for x in images], labels=LABELS[rows], mode="whole", flip=True)
        assert np.array_equal(alone[0], both[row])


def constant_model(values: list[float]):
    return lambda images, sizes: (
        jnp.broadcast_to(jnp.array(values), (len(images), 4, 4, len(values))),
        -(-sizes // 8),
    )


@pytest.mark.parametrize(
    ("scores", "expected"), [([1.0, 3.0, 3.0], 1), ([-5.0, -9.0, -8.0], 0), ([1.0, np.nan, 2.0], 3)]
)
def test_first_of_equal_scores_and_no_class_where_they_are_nan(scores, expected):
    # The class id of NaN scores is the number of classes, 3, which is no class.
    size = np.array([[32, 32]])
    found = predict(
        [jnp.zeros((1, 32, 32, 3))], labels=size, model=constant_model(scores), mode="whole", flip=False
    )
    assert (np.asarray(found)[0, :32, :32] == expected).all()


@pytest.mark.parametrize("mode", ["whole", "slide"])
def test_full_size_logits_never_exist(mode):
    settings = {"mode": mode, "flip": False, "slide_crop": (128, 128), "slide_stride": (85, 85)}
    kernel = jnp.ones((3, 100))

    def run(images, sizes):
        def cheap(x, sizes):
            return x[:, ::8, ::8] @ kernel, -(-sizes // 8)

        return inference.predict(cheap, [images], [sizes], sizes, (256, 256), settings)

    compiled = jax.jit(run).lower(np.zeros((4, 256, 256, 3), np.float32), np.full((4, 2), 250)).compile()
    one_image = 256 * 256 * 100 * 4
    assert compiled.memory_analysis().temp_size_in_bytes < one_image
