"""Decoding: every mode against values computed by hand, and every way in which a file can be broken."""

import importlib.util
import io
import pathlib
import warnings

import numpy as np
import pytest
from PIL import Image

from seaformer_jax import errors
from seaformer_jax.data import images
from seaformer_jax.data.classification import sources


def encode(image: Image.Image, extension: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, extension, **options)
    return buffer.getvalue()


def palette() -> Image.Image:
    image = Image.new("P", (3, 2), 1)
    image.putpalette([255, 0, 0, 0, 255, 0])
    return image


GREY16 = np.array([[0, 255, 256], [32768, 40000, 65535]], np.uint16)
NOISE = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)


@pytest.mark.parametrize(
    ("data", "colour"),
    [
        (encode(Image.new("L", (3, 2), 90), "png"), (90, 90, 90)),
        (encode(Image.new("LA", (3, 2), (90, 0)), "png"), (90, 90, 90)),
        (encode(palette(), "png"), (0, 255, 0)),
        (encode(palette(), "png", transparency=b"\x80\x00"), (0, 255, 0)),
        (encode(palette(), "gif", transparency=1), (0, 255, 0)),
        (encode(Image.new("RGBA", (3, 2), (10, 20, 30, 0)), "png"), (10, 20, 30)),
        (encode(Image.new("1", (3, 2), 1), "png"), (255, 255, 255)),
        (encode(Image.new("CMYK", (3, 2), (255, 0, 0, 0)), "tiff"), (0, 255, 255)),
        # In JPEG files, Adobe inverts CMYK.
        (encode(Image.new("CMYK", (3, 2), (255, 0, 0, 0)), "jpeg"), (0, 255, 255)),
        (encode(Image.new("RGB", (3, 2), (10, 20, 30)), "webp", lossless=True), (10, 20, 30)),
    ],
    ids=["L", "LA", "P", "P-tRNS", "gif", "RGBA", "1", "CMYK-tiff", "CMYK-jpeg", "webp"],
)
@pytest.mark.filterwarnings("ignore:Palette")  # pytest replaces the module's own warning filter.
def test_modes(data, colour):
    image = images.decode(data, "x")
    assert image.dtype == np.uint8
    assert image.shape == (2, 3, 3)
    assert (image == colour).all()


def test_adobe_ycck():
    """Stored Y=150, Cb=Cr=128 give C=M=Y = 255 - 150 = 105; inverted, the ink is 150, so RGB is 255 - 150 = 105."""
    data = bytearray(encode(Image.new("CMYK", (8, 8), (105, 127, 127, 0)), "jpeg", quality=100))
    transform = data.index(b"Adobe") + 11
    assert data[transform] == 0
    data[transform] = 2  # YCCK
    np.testing.assert_allclose(images.decode(bytes(data), "x"), 105, atol=2)


@pytest.mark.parametrize(
    "data",
    [
        encode(Image.fromarray(GREY16), "png"),
        encode(Image.fromarray(GREY16), "tiff"),
        encode(Image.fromarray(GREY16.astype(">u2")), "tiff"),
        b"P5 3 2 65535\n" + GREY16.astype(">u2").tobytes(),
    ],
    ids=["png", "tiff-little-endian", "tiff-big-endian", "pgm"],
)
def test_16_bit_grey_is_scaled_not_clipped(data):
    grey = images.decode(data, "x")
    np.testing.assert_array_equal(grey, np.repeat([[[0], [0], [1]], [[128], [156], [255]]], 3, axis=2))


def test_pixels_without_a_range_are_refused():
    for values, reason in ((np.float32([[0.5]]), "floating-point"), (np.int32([[70000]]), "70000")):
        with pytest.raises(errors.CorruptImageError, match=reason):
            images.decode(encode(Image.fromarray(values), "tiff"), "x")


def test_exif_orientation_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 6  # A viewer would rotate the image by 90 degrees.
    assert images.decode(encode(Image.fromarray(NOISE), "jpeg", exif=exif), "x").shape == (37, 53, 3)


def test_reads_paths(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(NOISE).save(path)
    np.testing.assert_array_equal(images.decode(path, "x"), NOISE)


def test_sources_give_pillow_images_where_asked(tmp_path):
    path = tmp_path / "train/cat/a.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(NOISE).save(path)
    image = sources.ImageFolder(tmp_path, "train", images.decode_pillow)[0]["image"]
    assert isinstance(image, Image.Image) and image.mode == "RGB"
    path.unlink()  # The image must be decoded by now, not merely opened.
    np.testing.assert_array_equal(image, NOISE)


JPEG, PNG = encode(Image.fromarray(NOISE), "jpeg"), encode(Image.fromarray(NOISE), "png")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (JPEG[: len(JPEG) // 2], "truncated"),
        (JPEG[:200], "Truncated"),
        (PNG[: len(PNG) // 2], "truncated"),
        (PNG[:200] + bytes(4) + PNG[204:], "broken"),
        (b"<html>404</html>", r"cannot identify image file \(16 bytes\)"),
        (b"", r"cannot identify image file \(0 bytes\)"),
    ],
    ids=["jpeg-half", "jpeg-header", "png-half", "png-checksum", "html", "empty"],
)
def test_broken_files(data, reason, tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    with pytest.raises(errors.CorruptImageError, match=rf"^{path}: .*{reason}"):
        images.decode(path, str(path))


def test_too_many_pixels(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(errors.CorruptImageError, match="exceeds limit"):
        images.decode(PNG, "x")


def test_unreadable_file_is_not_a_corrupt_image():
    with pytest.raises(errors.UserError, match="No such file") as caught:
        images.decode(pathlib.Path("nowhere.jpg"), "nowhere.jpg")
    assert not isinstance(caught.value, errors.CorruptImageError)


def test_pillow_does_not_warn():
    data = encode(palette(), "png", transparency=b"\x80\x00")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        Image.open(io.BytesIO(data)).convert("RGB")
        assert seen
        spec = importlib.util.find_spec(images.__name__)
        # A fresh copy, not a reload: other modules hold the functions of the original.
        fresh = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(fresh)
        seen.clear()
        fresh.decode(data, "x")
        assert not seen


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_the_faster_decoder_gives_pillows_pixels(mode, subsampling):
    photo = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    photo = Image.fromarray(photo).resize((45, 31), Image.Resampling.BICUBIC).convert(mode)
    data = encode(photo, "jpeg", quality=80, subsampling=subsampling)
    found = images.decode_either(data, "x")
    assert type(found) is np.ndarray
    np.testing.assert_array_equal(found, images.decode_pillow(data, "x"))


def test_what_the_faster_decoder_refuses_is_left_to_pillow(monkeypatch):
    data = encode(Image.new("RGB", (40, 30), (9, 99, 199)), "jpeg")
    with pytest.raises(errors.CorruptImageError, match=r"broken\.jpg: Truncated"):
        images.decode_either(data[: len(data) // 2], "broken.jpg")
    assert np.shape(images.decode_either(data + b"more", "x")) == (30, 40, 3)
    monkeypatch.setattr(images, "simplejpeg", None)
    np.testing.assert_array_equal(images.decode_either(data, "x"), images.decode(data, "x"))
