"""The encoding of masks, and the errors for masks that are encoded wrongly."""

import pickle

import numpy as np
import pytest

from seaformer_jax import errors
from seaformer_jax.data import labels
from seaformer_jax.data.labels import LabelSpec

ABC = ("a", "b", "c")
ROAD = np.array([[0, 1, 2], [2, 255, 0]], np.uint8)


def encode(raw, *args, **options):
    return LabelSpec(*(args or (ABC,)), **options).encode(np.asarray(raw), "m.png")


def by_hand(raw, meaning: dict) -> list:
    """Encodes pixel by pixel."""
    return [[meaning[int(value)] for value in row] for row in raw]


@pytest.mark.parametrize(
    ("options", "meaning"),
    [
        ({}, {0: 0, 1: 1, 2: 2, 255: 255}),
        ({"ignore_label": 3}, {0: 0, 1: 1, 2: 2, 3: 255}),
        ({"ignore_label": None}, {0: 0, 1: 1, 2: 2}),
        ({"reduce_zero_label": True}, {0: 255, 1: 0, 2: 1, 3: 2, 255: 255}),
        ({"id_map": ((7, 0), (8, 1), (9, 255), (200, 1))}, {7: 0, 8: 1, 9: 255, 200: 1, 255: 255}),
        ({"id_map": ((0, 2), (255, 0))}, {0: 2, 255: 0}),  # The map overrides the ignore label 255.
    ],
)
def test_encode(options, meaning):
    raw = np.random.default_rng(0).choice(np.array(sorted(meaning), np.uint8), (5, 7))
    found = encode(raw, **options)
    assert found.dtype == np.uint8
    assert found.tolist() == by_hand(raw, meaning)
    with pytest.raises(errors.UserError, match=r"m.png: the mask holds 100; expected "):
        encode(np.where(raw == raw[2, 3], 100, raw), **options)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32, np.int64])
def test_integers_of_any_width(dtype):
    raw = np.array([[0, 1], [2, 2]], dtype)
    assert encode(raw).tolist() == raw.tolist()


def test_booleans():
    assert encode(np.array([[True, False]]), ("off", "on")).tolist() == [[1, 0]]


def test_a_view_is_read_in_its_own_order():
    assert encode(ROAD.T).tolist() == ROAD.T.tolist()
    assert encode(ROAD[:, ::-1]).tolist() == ROAD[:, ::-1].tolist()


@pytest.mark.parametrize(
    ("raw", "options", "message"),
    [
        ([[0, 3, 9]], {}, r"holds 3, 9; expected 0..2 \(255 ignored\). These may be raw ids"),
        ([[1, 255]], {"ignore_label": None}, r"holds 255; expected 0..2\. "),
        (
            [[4, 255]],
            {"ignore_label": None, "reduce_zero_label": True},
            r"4, 255; expected 1..3 \(0 ignored\)",
        ),
        ([[6]], {"id_map": ((7, 0), (9, 1), (10, 255))}, r"6; expected 7, 9 \(10, 255 ignored\)"),
        ([[-1, 0]], {}, r"holds -1; expected"),
        ([[256, 0]], {}, r"holds 256; expected"),  # 256 would become 0 in a byte.
        (np.array([[-1]], np.int8), {}, r"holds -1; expected"),
        (np.arange(100)[None], {}, r"holds 3, 4, 5, 6, 7, 8, 9, 10 and 89 more"),
    ],
)
def test_values_that_are_no_class(raw, options, message):
    with pytest.raises(errors.UserError, match=rf"^m.png: .*{message}"):
        encode(raw, **options)


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (np.zeros((2, 2, 3), np.uint8), r"3 channels \(colours\)"),
        (np.zeros((2, 2), np.float32), "2 axes of float32"),
    ],
)
def test_masks_that_are_no_numbers(raw, kind):
    with pytest.raises(
        errors.UserError, match=rf"^m.png: a mask with {kind}; expected one channel of integers"
    ):
        encode(raw)


def test_255_as_a_class():
    """A binary mask of 0 and 255 would be read as class 0 and ignored pixels."""
    with pytest.raises(errors.UserError, match=r"m.png: 255 occurs but not the class 'on'; set data.id_map"):
        encode([[0, 255]], ("off", "on"))
    assert encode([[0, 1, 255]], ("off", "on")).tolist() == [[0, 1, 255]]
    assert encode([[0, 255]], ("off", "on"), id_map=((0, 0), (255, 1))).tolist() == [[0, 1]]
    ignored = ((0, 0), (1, 1), (255, 255))
    assert encode([[0, 255]], ("off", "on"), id_map=ignored).tolist() == [[0, 255]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ignore_label": 1}, "ignore_label 1 is the class 'b', too"),
        ({"ignore_label": 3, "reduce_zero_label": True}, "ignore_label 3 is the class 'c', too"),
        ({"id_map": ((0, 0),), "reduce_zero_label": True}, "id_map and reduce_zero_label"),
        ({"id_map": ((0, 3),)}, r"id_map has the classes \[3\]; expected some of 0..2"),
        ({"id_map": ((300, 1),)}, r"values \[255, 300\] in masks; expected values of a byte"),
        ({"palette": ((0, 0, 0),)}, "1 colours for 3 classes"),
    ],
)
def test_specifications_that_contradict_themselves(options, message):
    with pytest.raises(errors.UserError, match=message):
        encode([[0]], **options)


def test_number_of_classes():
    names = tuple(map(str, range(255)))
    raw = np.arange(254)[None]
    assert encode(raw, names[:254]).tolist() == raw.tolist()
    with pytest.raises(errors.UserError, match="255 classes; masks may have at most 254"):
        encode(raw, names)
    assert LabelSpec(tuple(map(str, range(1000)))).num_classes == 1000  # Classes of images, without masks.


def test_a_used_specification_can_be_sent_to_workers():
    spec = LabelSpec(ABC)
    spec.encode(ROAD, "m.png")
    copy = pickle.loads(pickle.dumps(spec))
    assert copy == spec and copy.encode(ROAD, "m.png").tolist() == ROAD.tolist()


def test_distinct_colours():
    """The first colours of Pascal VOC's published colour map, and no colour twice."""
    colours = labels.distinct_colours(254)
    assert colours[:9] == (
        *((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128)),
        *((128, 0, 128), (0, 128, 128), (128, 128, 128), (64, 0, 0)),
    )
    assert colours[20] == (0, 64, 128)
    assert len(set(colours)) == 254
