"""Reading COCO's format: identifiers, boxes that are left out, wrong files."""

import pickle

import numpy as np
import pytest

from seaformer_jax.data.detection.coco import CocoImages
from seaformer_jax.errors import UserError
from tests.data.detection import files
from tests.paths import SHARED


def opened(folder, split="train", max_boxes=None) -> CocoImages:
    return CocoImages(folder, split, "images/{split}", "annotations/instances_{split}.json", max_boxes)


def test_labels_follow_the_order_of_the_identifiers(tmp_path):
    source = opened(files.write(tmp_path, files.content()))
    assert source.labels.class_names == ("cat", "bee", "ant") and source.truth.category_ids == (2, 4, 9)
    first, second, third = (source[i] for i in range(3))
    np.testing.assert_array_equal(first["boxes"], [[1.5, 2, 31.5, 22.5]])  # Without the crowd.
    assert first["labels"].tolist() == [0] and second["labels"].tolist() == [2]
    np.testing.assert_array_equal(second["boxes"], [[5, 6, 25, 36]])
    assert third["boxes"].shape == (0, 4) and third["image"].shape == (40, 60, 3)
    assert [source.size(i) for i in range(3)] == [(40, 60), (60, 40), (40, 60)]


def test_training_leaves_out_images_without_boxes(tmp_path):
    source = opened(files.write(tmp_path, files.content()), max_boxes=5)
    assert len(source) == 2 and [int(source[i]["index"]) for i in range(2)] == [0, 1]
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again[1]["image"], source[1]["image"])


@pytest.mark.parametrize(
    "change",
    [
        {"bbox": [70, 5, 10, 10]},  # Beyond the right border.
        {"bbox": [5, -20, 10, 20]},
        {"bbox": [5, 5, 0.5, 10]},
        {"bbox": [5, 5, 0, 10]},
        {"area": 0},
        {"ignore": 1},
    ],
    ids=str,
)
def test_boxes_that_nothing_can_be_learnt_from_are_left_out(tmp_path, change):
    record = files.content()
    record["annotations"][1] |= change
    source = opened(files.write(tmp_path, record), max_boxes=5)
    assert [int(source[i]["index"]) for i in range(len(source))] == [1]
    assert len(source.truth.image) == 3  # The evaluation has all.


def test_dropped_boxes_are_counted_in_the_log(tmp_path, caplog):
    record = files.content()
    record["annotations"][1]["bbox"] = [5, 5, 0, 10]
    opened(files.write(tmp_path, record))
    assert "1 of 3 boxes are outside their image or smaller than a pixel" in caplog.text


def test_bccd_is_as_its_description_says():
    root = SHARED / "data/bccd"
    if not root.exists():
        pytest.skip("the data set (../shared/data/bccd) is absent")
    train, val = opened(root, max_boxes=30), opened(root, "val")
    assert (len(train), len(val)) == (205, 87)
    assert np.bincount(train.truth.label).tolist() == [2381, 214, 209]
    assert np.bincount(val.truth.label).tolist() == [967, 87, 83]


def without(key):
    def change(record):
        del record[key]

    return change


def replaced(*path, value):
    def change(record):
        for key in path[:-1]:
            record = record[key]
        record[path[-1]] = value

    return change


WRONG = {
    "no annotations": (without("annotations"), r"not in COCO's format: found the keys .* expected images"),
    "no list": (replaced("images", value={}), "images is no list"),
    "no images": (replaced("images", value=[]), "has no images; expected at least one"),
    "box of three": (replaced("annotations", 0, "bbox", value=[1, 2, 3]), r"annotations\[0\] is .*bbox"),
    "box of text": (replaced("annotations", 0, "bbox", value=["1", 2, 3, 4]), r"annotations\[0\] is .*bbox"),
    "nan": (replaced("annotations", 0, "bbox", value=[1, 2, float("nan"), 4]), r"annotations\[0\] is .*bbox"),
    "unknown category": (replaced("annotations", 0, "category_id", value=77), "have the category_id 77"),
    "unknown image": (replaced("annotations", 0, "image_id", value=77), "have the image_id 77"),
    "same id": (replaced("images", 0, "id", value=3), "two of the images have the same id"),
    "no size": (
        replaced("images", 0, "width", value=0),
        r"images\[0\] is .*expected id, file_name, width and height",
    ),
    "no name": (replaced("categories", 0, "name", value=None), r"categories\[0\] is .*expected id and name"),
    "missing file": (
        replaced("images", 0, "file_name", value="z.png"),
        r"1 of 3 images .* are missing \(z.png\)",
    ),
    "no boxes": (replaced("annotations", value=[]), "none of 3 images has a box to train on"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_one_line(tmp_path, name):
    change, message = WRONG[name]
    record = files.content()
    change(record)
    with pytest.raises(UserError, match=message) as error:
        opened(files.write(tmp_path, record), max_boxes=5)
    assert "\n" not in str(error.value)


def test_a_list_and_broken_json_are_refused(tmp_path):
    with pytest.raises(UserError, match="is not in COCO's format: found a list or a number"):
        opened(files.write(tmp_path, []))
    (tmp_path / "annotations/instances_train.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        opened(tmp_path)
    (tmp_path / "annotations/instances_train.json").unlink()
    with pytest.raises(UserError, match="cannot be read: No such file or directory"):
        opened(tmp_path)


def test_an_image_of_another_size_is_refused(tmp_path):
    record = files.content()
    record["images"][0]["width"] = 61
    with pytest.raises(UserError, match=r"60 x 40 pixels, but .* says 61 x 40"):
        opened(files.write(tmp_path, record))[0]


def test_more_boxes_than_the_limit_are_refused(tmp_path):
    record = files.content()
    record["annotations"] += [record["annotations"][0] | {"id": 10 + k} for k in range(5)]
    with pytest.raises(
        UserError, match=r"id 3 has 6 boxes, but data.max_boxes is 5; set --config.data.max_boxes=6"
    ):
        opened(files.write(tmp_path, record), max_boxes=5)
