"""Every folder layout, on files that the tests write, with right and wrong encodings."""

import pathlib
import pickle

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from seaformer_jax import config, errors
from seaformer_jax.data import shapes
from seaformer_jax.data.segmentation import sources
from seaformer_jax.data.sources import SkipCorrupt
from tests.paths import SHARED

HEIGHT, WIDTH = 6, 8
CAMVID = SHARED / "data/camvid"

IMAGES, MASKS = 0, 1
# data.source -> split -> (path of an image, path of its mask)
LAYOUTS = {
    "ade20k": {
        "training": ("images/training/ADE_train_{}.jpg", "annotations/training/ADE_train_{}.png"),
        "validation": ("images/validation/ADE_val_{}.jpg", "annotations/validation/ADE_val_{}.png"),
    },
    "cityscapes": {
        split: (
            f"leftImg8bit/{split}/{city}/{city}_{{}}_leftImg8bit.png",
            f"gtFine/{split}/{city}/{city}_{{}}_gtFine_labelIds.png",
        )
        for split, city in (("train", "aachen"), ("val", "bad-honnef"))
    },
    "pascal_context": {
        split: ("JPEGImages/2008_{}.jpg", "SegmentationClassContext/2008_{}.png")
        for split in ("train", "val")
    },
    "coco_stuff": {
        split: (
            f"images/{split}/COCO_train2014_{{}}.jpg",
            f"annotations/{split}/COCO_train2014_{{}}_labelTrainIds.png",
        )
        for split in ("train2014", "test2014")
    },
    "camvid": {
        split: (f"images/{split}/0001TP_{{}}.jpg", f"annotations/{split}/0001TP_{{}}.png")
        for split in ("train", "val")
    },
}
LAYOUTS["pascal_context_59"] = LAYOUTS["pascal_context"]
# data.source -> (values in a mask, their classes, an invalid value, the values that its error message expects)
ENCODINGS = {
    "ade20k": ([0, 1, 2, 150], [255, 0, 1, 149], 255, r"1..150 \(0 ignored\)"),
    "cityscapes": ([0, 7, 26, 33], [255, 0, 13, 18], 255, r"7..8, 11..13, .* \(0..6, 9..10, .* ignored\)"),
    "pascal_context": ([0, 1, 2, 59], [0, 1, 2, 59], 60, r"0..59\."),
    "pascal_context_59": ([0, 1, 2, 59], [255, 0, 1, 58], 60, r"1..59 \(0 ignored\)"),
    "coco_stuff": ([0, 1, 2, 171], [255, 0, 1, 170], 182, r"1..171 \(0 ignored\)"),
    "camvid": ([0, 1, 10, 11], [0, 1, 10, 255], 255, r"0..10 \(11 ignored\)"),
}


class Masks:
    """100 images: those at `labelled` have a labelled pixel, and those at `broken` cannot be read."""

    def __init__(self, labelled=(), broken=()):
        self.labelled, self.broken = labelled, broken

    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> dict:
        if index in self.broken:
            raise errors.CorruptImageError(f"{index}.jpg")
        mask = np.full((2, 3), 255, np.uint8)
        mask[0, 0] = 0 if index in self.labelled else 255
        return {"label": mask}


def test_a_split_without_labels_is_refused():
    for source in (
        Masks(),
        Masks(labelled=(1, 50)),
    ):  # 16 images are looked at, among them the first and the last.
        with pytest.raises(
            errors.UserError, match=r"none of 16 images of data\.val_split has a labelled pixel"
        ):
            sources.check_labelled(source, "val")
    sources.check_labelled(Masks(labelled=(99,)), "val")
    sources.check_labelled(Masks(broken=(0,)), "val")  # Broken images have an error of their own.


def save(path: pathlib.Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def mask_of(values) -> np.ndarray:
    return np.resize(np.array(values, np.uint8), (HEIGHT, WIDTH))


def picture(value: int) -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), value, np.uint8)


def lists(root: pathlib.Path, source: str) -> dict[str, pathlib.Path]:
    """Returns the list file of each split, for the data sets that have them."""
    if source.startswith("pascal"):
        folder = root / "ImageSets/SegmentationContext"
        return {split: folder / f"{split}.txt" for split in ("train", "val")}
    if source == "coco_stuff":
        return {f"{split}2014": root / f"imageLists/{split}.txt" for split in ("train", "test")}
    return {}


def make(root: pathlib.Path, source: str) -> None:
    """Writes three training and two validation images, not in the order of their names."""
    numbers = {split: ids for split, ids in zip(LAYOUTS[source], ([2, 0, 1], [4, 3]), strict=True)}
    for split, layout in LAYOUTS[source].items():
        for number in numbers[split]:
            save(root / layout[IMAGES].format(f"{number:06}"), picture(20 * number))
            save(root / layout[MASKS].format(f"{number:06}"), mask_of(np.roll(ENCODINGS[source][0], number)))
    for split, path in lists(root, source).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        name = LAYOUTS[source][split][IMAGES].split("/")[-1].removesuffix(".jpg")
        path.write_text("".join(name.format(f"{n:06}") + "\n" for n in sorted(numbers[split])))


def record(source: str, root="", **changes) -> ConfigDict:
    train, val = LAYOUTS.get(source, ("train", "val"))
    data = config.segmentation().data
    data.update({"source": source, "root": str(root), "train_split": train, "val_split": val, **changes})
    return data


def create(source: str, root="", split: str = "train", **changes):
    return sources.create(record(source, root, **changes), split)


@pytest.fixture(params=ENCODINGS)
def made(request, tmp_path):
    make(tmp_path, request.param)
    return request.param, tmp_path


def test_layout(made):
    """Both splits hold their images in the order of the names, also after pickling."""
    source, root = made
    _, encoded, _, _ = ENCODINGS[source]
    for split, numbers in (("train", [0, 1, 2]), ("val", [3, 4])):
        data = pickle.loads(pickle.dumps(create(source, root, split)))
        assert len(data) == len(numbers)
        for index, number in enumerate(numbers):
            element = data[index]
            assert set(element) == {"image", "label"}
            assert (element["image"] == 20 * number).all() and element["image"].shape == (HEIGHT, WIDTH, 3)
            assert element["image"].dtype == element["label"].dtype == np.uint8
            np.testing.assert_array_equal(element["label"], mask_of(np.roll(encoded, number)))
            assert data.size(index) == (HEIGHT, WIDTH)
    assert len(data.labels.class_names) == len(data.labels.palette) == max(set(encoded) - {255}) + 1


def first_mask(source: str, root: pathlib.Path) -> pathlib.Path:
    return root / next(iter(LAYOUTS[source].values()))[MASKS].format("000000")


def test_a_value_that_is_no_class(made):
    source, root = made
    raw, _, wrong, expected = ENCODINGS[source]
    save(first_mask(source, root), mask_of([*raw, wrong]))
    data = create(source, root)
    assert data[1]["label"].shape == (HEIGHT, WIDTH)
    with pytest.raises(
        errors.UserError, match=rf"^{first_mask(source, root)}: .* {wrong}; expected {expected}"
    ):
        data[0]


def test_a_mask_of_colours(made):
    source, root = made
    save(first_mask(source, root), picture(3))
    with pytest.raises(errors.UserError, match=rf"^{first_mask(source, root)}: a mask with 3 channels"):
        create(source, root)[0]


def test_a_mask_of_another_size(made):
    source, root = made
    save(first_mask(source, root), mask_of([1]).T)
    size = (
        rf"{first_mask(source, root)}: the mask is 6 x 8 pixels, but its image {root}/.* is 8 x 6; they must"
    )
    with pytest.raises(errors.UserError, match=size):
        create(source, root)[0]


def test_a_missing_mask(made):
    source, root = made
    path = first_mask(source, root)
    path.unlink()
    missing = rf"{root}: 1 of 3 masks are missing \({path.relative_to(root)}\)"
    with pytest.raises(errors.UserError, match=missing):
        create(source, root)


def test_a_missing_folder_of_masks(made):
    source, root = made
    path = first_mask(source, root)
    top = root / path.relative_to(root).parts[0]
    top.rename(root / "elsewhere")
    with pytest.raises(errors.UserError, match=rf"{root}: (no folder '{top.name}'|3 of 3 masks are missing)"):
        create(source, root)


def test_a_broken_mask_is_a_broken_image(made):
    source, root = made
    first_mask(source, root).write_bytes(b"no image")
    data = create(source, root)
    with pytest.raises(errors.CorruptImageError, match=rf"^{first_mask(source, root)}: cannot identify"):
        data[0]
    element = SkipCorrupt(data, "skip")[0]
    assert element["skipped"] == 1 and (element["image"] == 20).all()


def test_no_images(made):
    source, root = made
    for layout in LAYOUTS[source].values():
        for path in (root / layout[IMAGES]).parent.iterdir():
            path.unlink()
    with pytest.raises(errors.UserError, match=r"no image|no file|3 of 3 listed images are missing"):
        create(source, root)


def test_no_root(made, tmp_path):
    source, root = made
    with pytest.raises(
        errors.UserError, match=r"data.root is empty; .* holds .*(images|leftImg8bit|JPEGImages)"
    ):
        create(source)
    with pytest.raises(errors.UserError, match="no such folder; expected"):
        create(source, root / "nowhere")


@pytest.mark.parametrize("source", ["ade20k", "cityscapes", "camvid"])
def test_an_unknown_split(source, tmp_path):
    make(tmp_path, source)
    names = ", ".join(f"{name}/" for name in LAYOUTS[source])
    with pytest.raises(errors.UserError, match=rf"no folder 'trian' \(found {names}\); .* data.train_split"):
        create(source, tmp_path, train_split="trian")


@pytest.mark.parametrize("source", ["pascal_context", "pascal_context_59", "coco_stuff"])
def test_lists(source, tmp_path):
    make(tmp_path, source)
    path = next(iter(lists(tmp_path, source).values()))
    path.write_text(path.read_text().splitlines()[1])  # The list has one name and no newline at its end.
    data = create(source, tmp_path)
    assert len(data) == 1 and (data[0]["image"] == 20).all()
    path.write_text(path.read_text() + "\nnobody\n")
    with pytest.raises(errors.UserError, match=r"1 of 2 listed images are missing \(.*/nobody.jpg\)"):
        create(source, tmp_path)
    path.write_text("\n")
    with pytest.raises(errors.UserError, match=rf"{path}: the list is empty"):
        create(source, tmp_path)
    path.unlink()
    with pytest.raises(errors.UserError, match=rf"{path}: cannot be read: No such file.*data.train_split"):
        create(source, tmp_path)


def test_cityscapes_prefers_train_ids_where_all_are_there(tmp_path):
    make(tmp_path, "cityscapes")
    masks = sorted((tmp_path / "gtFine/train/aachen").iterdir())
    for path in masks[:2]:
        save(path.with_name(path.name.replace("labelIds", "labelTrainIds")), mask_of([5, 255]))
    assert create("cityscapes", tmp_path)[0]["label"][0, 1] == 0  # One file is missing, so labelIds are read.
    last = masks[2].with_name(masks[2].name.replace("labelIds", "labelTrainIds"))
    save(last, mask_of([18]))
    data = create("cityscapes", tmp_path)
    assert [data[i]["label"][0, :2].tolist() for i in range(3)] == [[5, 255], [5, 255], [18, 18]]
    save(last, mask_of([7, 26]))  # Raw ids in a file that should hold train ids.
    with pytest.raises(
        errors.UserError, match=r"labelTrainIds.png: .* 26; expected 0..18 \(255 ignored\). .*raw"
    ):
        create("cityscapes", tmp_path)[2]
    for path in masks[:2]:
        path.unlink()  # Now neither kind of mask is complete.
    last.unlink()
    with pytest.raises(errors.UserError, match=r"2 of 3 masks are missing \(gtFine/.*_labelIds.png"):
        create("cityscapes", tmp_path)


def test_cityscapes_with_other_images(tmp_path):
    make(tmp_path, "cityscapes")
    city = tmp_path / "leftImg8bit/train/aachen"
    for path in city.iterdir():
        path.rename(city / path.name.replace("_leftImg8bit", ""))
    with pytest.raises(errors.UserError, match=r"no file ends in _leftImg8bit.png"):
        create("cityscapes", tmp_path)


@pytest.fixture
def own(tmp_path):
    """A folder of photos and one of masks, with a folder per day; one mask has no photo, which is allowed."""
    for day, name, value in (("mon", "a.JPG", 0), ("tue", "b.png", 1)):
        save(tmp_path / "photos/train" / day / name, picture(value))
        save(tmp_path / "masks/train" / day / f"{name[0]}.png", mask_of([value, 10, 0]))
    save(tmp_path / "masks/train/c.png", mask_of([0]))
    return {"root": tmp_path, "images": "photos", "annotations": "masks", "class_names": ("x", "y")}


def test_pairs(own):
    data = create("pairs", **own, ignore_label=10)
    assert [(e["image"] == i).all() for i, e in enumerate(data[k] for k in range(len(data)))] == [True, True]
    assert [data[i]["label"][0, :3].tolist() for i in range(2)] == [[0, 255, 0], [1, 255, 0]]
    assert data.labels.palette == ((0, 0, 0), (128, 0, 0))
    data = create("pairs", **own, id_map=((0, 1), (1, 0), (10, 255)), palette=((1, 2, 3), (4, 5, 6)))
    assert data[1]["label"][0, :3].tolist() == [0, 255, 1]
    assert data.labels.palette == ((1, 2, 3), (4, 5, 6))
    own["class_names"] = tuple("abcdefghij")
    assert create("pairs", **own, reduce_zero_label=True)[1]["label"][0, :3].tolist() == [0, 9, 255]


def test_pairs_errors(own):
    with pytest.raises(errors.UserError, match=r"b.png: the mask holds 10; expected 0..1 \(255 ignored\)"):
        create("pairs", **own)[1]
    with pytest.raises(
        errors.UserError,
        match=r"no folder 'foto' \(found masks/, photos/\); correct data.root \(or data.images and",
    ):
        create("pairs", **own | {"images": "foto"})
    with pytest.raises(errors.UserError, match=r"correct data.root \(or data.images and data.annotations if"):
        create("pairs", **own | {"annotations": "foto"})
    with pytest.raises(errors.UserError, match=r"data.class_names is empty"):
        create("pairs", **own | {"class_names": ()})
    with pytest.raises(errors.UserError, match="3 colours for 2 classes"):
        create("pairs", **own, palette=((0, 0, 0),) * 3)


def test_shapes():
    sizes = {"image_size": 32, "train_size": 4, "val_size": 2}
    data = create("shapes", split="val", **sizes)
    assert len(data) == 2 and data.size(1) == (32, 32)
    assert data.labels.class_names == ("background", *shapes.CLASS_NAMES)
    whole = shapes.Shapes("val", 2, 32).render(1)
    np.testing.assert_array_equal(data[1]["label"], whole["mask"])
    np.testing.assert_array_equal(data[1]["image"], whole["image"])
    assert [len(create("shapes", split=split, **sizes)) for split in ("train", "val")] == [4, 2]


def test_an_unknown_source():
    with pytest.raises(
        errors.UserError, match=r"'ade20'; expected one of ade20k, .*, tfds. Did you mean 'ade20k'"
    ):
        create("ade20")


@pytest.mark.skipif(not CAMVID.is_dir(), reason="needs the real data set")
@pytest.mark.parametrize(("split", "count"), [("train", 367), ("val", 101)])
def test_real_camvid(split, count):
    data = create("camvid", CAMVID, split)
    assert len(data) == count and data.size(count - 1) == (360, 480)
    seen = set(np.unique(data[count - 1]["label"]).tolist())
    assert seen <= {*range(11), 255} and len(seen) > 5
