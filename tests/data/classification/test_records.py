"""Packed records against the folder that they are made of, and against the host's crops."""

import io
import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from etils import epath
from PIL import Image

from seaformer_jax import config as configs
from seaformer_jax import errors
from seaformer_jax.data import images, pipeline
from seaformer_jax.data.classification import augment, prepare, records, sources
from seaformer_jax.data.classification.transforms import TrainTransform, WindowTransform
from seaformer_jax.data.on_device.crop import resize_crops
from seaformer_jax.data.sources import SkipCorrupt
from tests import forked

SHORT = 40
SIZES = [(60, 80), (80, 60), (40, 40), (30, 45), (45, 30), (41, 120), (200, 50)]  # Height, width.


def photo(height: int, width: int, seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An image folder with 21 photos in two classes."""
    root = tmp_path_factory.mktemp("folder")
    for i in range(3 * len(SIZES)):
        path = root / f"train/{'ab'[i % 2]}/{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(*SIZES[i % len(SIZES)], i).save(path)
    return root


def settings(store: str, **changes) -> prepare.Settings:
    values = {"short_side": SHORT, "quality": 95, "shard_images": 8, "skip_corrupt": False}
    return prepare.Settings(**{"store": store, **values, **changes})


def pack(folder, out, store: str, **changes) -> int:
    target = epath.Path(out) / "train"
    target.mkdir(parents=True, exist_ok=True)
    source = sources.ImageFolder(folder, "train", images.decode_pillow)
    return prepare.prepare(source, target, settings(store, **changes))


@pytest.fixture(scope="module", params=["jpeg", "uint8"])
def packed(request, folder, tmp_path_factory):
    """(kind, root) of the folder's records."""
    out = tmp_path_factory.mktemp(request.param)
    assert pack(folder, out, request.param) == 21
    return request.param, out


def open_source(root, source: str = "records"):
    config = configs.default().data
    config.update({"source": source, "root": str(root)})
    return sources.create(config, "train", images.decode_either)


def test_records_are_the_smaller_images_of_the_source(folder, packed):
    store, root = packed
    source, found = open_source(folder, "folder"), open_source(root)
    assert found.labels == source.labels and len(found) == len(source) == 21
    for i in range(21):
        element, original = found[i], Image.fromarray(np.asarray(source[i]["image"]))
        assert element["label"] == source[i]["label"]
        share = min(1, SHORT / min(original.size))
        size = [round(share * side) for side in original.size]
        expected = np.asarray(
            original.resize(size, Image.Resampling.BICUBIC) if share < 1 else original
        ).astype(int)
        difference = np.abs(np.asarray(element["image"]) - expected)
        assert difference.mean() < (4 if store == "jpeg" else 1e-9)


def test_records_can_be_read_in_any_order_and_pickled(packed):
    found = open_source(packed[1])
    once = [np.asarray(found[i]["image"]).copy() for i in range(21)]
    again = pickle.loads(pickle.dumps(found))
    for i in np.random.default_rng(0).permutation(21).tolist():
        np.testing.assert_array_equal(again[i]["image"], once[i])


def test_images_lie_in_shards_of_their_own_size(packed):
    store, root = packed
    card = json.loads((root / "train/records.json").read_text())
    assert [entry["images"] for entry in card["shards"]] == [8, 8, 5]
    assert card["images"] == 21 and tuple(card["class_names"]) == ("a", "b")
    found = open_source(root)
    for i in range(21):
        height, width, _ = np.asarray(found.lying(i)["image"]).shape
        assert height <= SHORT and height <= width
        assert found.lying(i)["upright"] == (
            np.asarray(found[i]["image"]).shape[:2] == (width, height) != (height, width)
        )
    if store == "uint8":
        assert sum(entry["bytes"] for entry in card["shards"]) == sum(
            np.asarray(found[i]["image"]).size for i in range(21)
        )


def test_an_interrupted_preparation_goes_on(folder, packed, tmp_path, monkeypatch):
    kind, root = packed
    write, calls = prepare._write_shard, []

    def failing(path, rows, store):
        if len(calls) == 2:
            path.write_bytes(b"half a shard")
            raise KeyboardInterrupt
        calls.append(path.name)
        return write(path, rows, store)

    monkeypatch.setattr(prepare, "_write_shard", failing)
    with pytest.raises(KeyboardInterrupt):
        pack(folder, tmp_path, kind)
    with pytest.raises(errors.UserError, match="unfinished; run the same prepare command again"):
        open_source(tmp_path)
    calls.clear()
    assert pack(folder, tmp_path, kind) == 21
    assert calls == [f"00002.{records.SUFFIXES[kind]}"]
    for file in (root / "train").iterdir():
        if file.suffix != ".npz":  # It holds the time.
            assert (
                tmp_path / "train" / file.name
            ).read_bytes() == file.read_bytes() or file.name == "records.json"
    assert pack(folder, tmp_path, kind) == 21 and len(calls) == 1  # Complete: nothing is written.


def test_other_settings_need_another_folder(folder, packed):
    with pytest.raises(errors.UserError, match=r"holds records whose settings is .*give another --out"):
        pack(folder, packed[1], packed[0], quality=50)


def test_damage_is_found(folder, packed, tmp_path):
    store = packed[0]
    pack(folder, tmp_path, store)
    assert prepare.check(epath.Path(tmp_path) / "train") == 6
    shard = tmp_path / f"train/00001.{records.SUFFIXES[store]}"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    with pytest.raises(errors.UserError, match=r"00001.* is damaged"):
        prepare.check(epath.Path(tmp_path) / "train")
    shard.write_bytes(whole[:-1])
    with pytest.raises(errors.UserError, match=f"has {len(whole) - 1} bytes; expected {len(whole)}"):
        open_source(tmp_path)
    shard.write_bytes(whole)
    (tmp_path / "train/00002.npz").write_bytes(b"")
    with pytest.raises(errors.UserError, match=r"00002\.npz cannot be read"):
        open_source(tmp_path)


def test_a_broken_image_is_an_error_or_left_out(folder, tmp_path):
    for name in ("x", "y"):
        (tmp_path / f"photos/train/{name}").mkdir(parents=True)
        photo(50, 50, 1).save(tmp_path / f"photos/train/{name}/1.png")
    (tmp_path / "photos/train/x/2.jpg").write_bytes(b"no image")
    with pytest.raises(errors.CorruptImageError, match=r"2\.jpg"):
        pack(tmp_path / "photos", tmp_path / "out", "jpeg")
    assert pack(tmp_path / "photos", tmp_path / "other", "jpeg", skip_corrupt=True) == 2
    assert [open_source(tmp_path / "other")[i]["label"] for i in range(2)] == [0, 1]


def test_a_full_disk_is_an_error_before_anything_is_written(folder, tmp_path, monkeypatch):
    usage = prepare.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(prepare.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(errors.UserError, match=r"take about 0\.\d+ MB, but .* has 0\.00 MB free"):
        pack(folder, tmp_path, "uint8")
    assert not list((tmp_path / "train").iterdir())


def test_missing_records_are_an_error(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(errors.UserError, match=r"no records\.json \(found nothing\)"):
        open_source(tmp_path)


RECIPE = {**configs.default().augment.to_dict(), "rand_augment": "", "interpolation": "bilinear", "flip": 0.0}


def test_windows_hold_the_hosts_crops(packed):
    """Resized, they are the images of `TrainTransform`."""
    found, lying = open_source(packed[1]), records.Lying(open_source(packed[1]))
    window = WindowTransform(SHORT, RECIPE)
    host = TrainTransform(24, RECIPE, (0.5, 0.5, 0.5))
    rows = [window.random_map(lying[i % 21], np.random.default_rng(i)) for i in range(84)]
    batch = window.stack(rows)
    assert batch["image"].shape == (84, *window.window, 3) and window.window == (40, 54)
    flags = jnp.zeros(84, bool)
    resized = resize_crops(batch["image"], batch["size"], batch["upright"], flags, flags, 24)
    for i in range(84):
        expected = host.random_map(found[i % 21], np.random.default_rng(i))
        assert batch["label"][i] == expected["label"]
        assert np.abs(np.asarray(resized[i]).astype(int) - expected["image"]).max() <= 2


@pytest.mark.parametrize("ratio", [(3 / 4, 4 / 3), (0.4, 0.5), (1.5, 3.0)])
def test_every_crop_fits_into_a_window(ratio):
    recipe = {**RECIPE, "crop_ratio": ratio}
    window, rng = WindowTransform(SHORT, recipe), np.random.default_rng(0)
    for shape in ((40, 40), (40, 41), (40, 300), (7, 9), (1, 1)):
        for upright in (False, True):
            element = {"image": np.zeros((*shape, 3), np.uint8), "label": 0, "upright": upright}
            rows = [window.random_map(element, rng) for _ in range(300)]
            assert window.stack(rows)["size"].min() >= 1


@pytest.fixture(scope="module", autouse=True)
def parsed_flags():
    """grain passes absl's flags on to its workers, so they must be parsed."""
    flags.FLAGS.mark_as_parsed()


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_batches_of_windows_resume_and_are_shared(packed, workers):
    source = SkipCorrupt(records.Lying(open_source(packed[1])), "error")

    def batches(start: int, count: int, **options) -> list[dict]:
        iterator = pipeline.train_batches(
            source, WindowTransform(SHORT, RECIPE), batch_size=6, seed=1, start_step=start, **options
        )
        found = [next(iterator) for _ in range(count)]
        iterator.close()
        return found

    whole = batches(0, 6)
    assert whole[0].keys() == {"image", "size", "upright", "label", "skipped"}
    for found, expected in zip(batches(4, 2, workers=workers), whole[4:], strict=True):
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    shares = [batches(0, 6, process_index=i, process_count=2) for i in range(2)]
    for one, two, expected in zip(*shares, whole, strict=True):
        jax.tree.map(
            lambda a, b, c: np.testing.assert_array_equal(np.concatenate([a, b]), c), one, two, expected
        )


def test_the_command(folder, tmp_path):
    arguments = [
        "--source=folder",
        f"--root={folder}",
        f"--out={tmp_path}",
        "--short_side=32",
        "--shard_images=10",
    ]
    done = forked.run("seaformer_jax.prepare", *arguments)
    assert done.returncode == 0, done.stderr
    assert "21 images as jpeg take about" in done.stderr and "shard 3 of 3 (100%)" in done.stderr
    assert f"--config.data.root={tmp_path}" in done.stderr
    assert open_source(tmp_path).short_side == 32
    assert forked.run("seaformer_jax.prepare", f"--out={tmp_path}", "--check").returncode == 0
    refused = forked.run("seaformer_jax.prepare", f"--out={tmp_path}")
    assert refused.returncode == 2 and "data.root is empty" in refused.stderr


def test_stored_jpeg_files_are_ordinary_ones(packed):
    if packed[0] == "jpeg":
        data = open_source(packed[1])._files[0]
        assert Image.open(io.BytesIO(data)).format == "JPEG"
        assert augment.size_of(images.decode_either(data, "x")) == (40, 53)
