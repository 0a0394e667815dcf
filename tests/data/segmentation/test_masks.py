"""Mask files: their numbers are read without conversion."""

import io

import numpy as np
import pytest
from PIL import Image

from seaformer_jax import errors
from seaformer_jax.data.segmentation import masks

NUMBERS = np.array([[0, 1, 7], [150, 254, 255]], np.uint8)


def png(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "png", **options)
    return buffer.getvalue()


def test_grey():
    assert masks.decode(png(Image.fromarray(NUMBERS)), "m").tolist() == NUMBERS.tolist()


@pytest.mark.parametrize("bits", [4, 8])
def test_a_palette_is_not_applied(bits):
    numbers = NUMBERS % 16 if bits == 4 else NUMBERS
    image = Image.fromarray(numbers).convert("P")
    image.putdata(numbers.ravel().tolist())
    image.putpalette(np.random.default_rng(0).integers(0, 256, 3 * 2**bits, np.uint8).tobytes())
    assert masks.decode(png(image, bits=bits), "m").tolist() == numbers.tolist()


def test_sixteen_bits_stay():
    numbers = NUMBERS.astype(np.uint16) * 200
    assert masks.decode(png(Image.fromarray(numbers)), "m").tolist() == numbers.tolist()


def test_one_bit():
    numbers = np.array([[True, False, True]])
    assert masks.decode(png(Image.fromarray(numbers)), "m").tolist() == numbers.tolist()


def test_colours_keep_their_channels():
    assert masks.decode(png(Image.new("RGB", (3, 2))), "m").shape == (2, 3, 3)


def test_a_path(tmp_path):
    (tmp_path / "m.png").write_bytes(png(Image.fromarray(NUMBERS)))
    assert masks.decode(tmp_path / "m.png", "m").tolist() == NUMBERS.tolist()
    assert masks.image_size(tmp_path / "m.png", "m") == (2, 3)


def test_the_size_needs_the_header_alone():
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    assert masks.image_size(png(Image.fromarray(noise))[:100], "x") == (40, 30)


@pytest.mark.parametrize("read", [masks.decode, masks.image_size])
def test_broken_files(read, tmp_path):
    with pytest.raises(errors.CorruptImageError, match=r"^m.png: cannot identify image file$"):
        read(b"no image", "m.png")
    with pytest.raises(errors.UserError, match=r"^m.png: cannot be read: No such file") as error:
        read(tmp_path / "m.png", "m.png")
    assert not isinstance(error.value, errors.CorruptImageError)


def test_a_truncated_file():
    noise = np.random.default_rng(0).integers(0, 256, (40, 30), np.uint8)
    with pytest.raises(errors.CorruptImageError, match=r"^m.png: .*truncated"):
        masks.decode(png(Image.fromarray(noise))[:400], "m.png")
