"""The class tables of the data sets, against facts that are published elsewhere."""

import configparser

import numpy as np
import pytest

from seaformer_jax.data.segmentation import label_sets
from tests.paths import REPOSITORY

# (name, number of classes, first class, last class, valid values in the files)
FACTS = [
    ("ade20k", 150, ("wall", (120, 120, 120)), ("flag", (92, 0, 255)), range(151)),
    ("cityscapes", 19, ("road", (128, 64, 128)), ("bicycle", (119, 11, 32)), [*range(19), 255]),
    ("cityscapes_ids", 19, ("road", (128, 64, 128)), ("bicycle", (119, 11, 32)), range(34)),
    ("pascal_context", 60, ("background", (120, 120, 120)), ("wood", (31, 0, 255)), range(60)),
    ("pascal_context_59", 59, ("aeroplane", (180, 120, 120)), ("wood", (31, 0, 255)), range(60)),
    ("coco_stuff", 171, ("person", (0, 192, 64)), ("wood", (64, 64, 0)), range(172)),
    ("camvid", 11, ("Sky", (128, 128, 128)), ("Bicyclist", (0, 128, 192)), range(12)),
    ("shapes_masks", 9, ("background", (0, 0, 0)), ("hexagon", (64, 0, 0)), range(9)),
]


@pytest.mark.parametrize(("name", "count", "first", "last", "values"), FACTS)
def test_classes(name, count, first, last, values):
    spec = getattr(label_sets, name)()
    assert spec.num_classes == len(spec.palette) == len(set(spec.class_names)) == count
    assert (spec.class_names[0], spec.palette[0]) == first
    assert (spec.class_names[-1], spec.palette[-1]) == last
    assert all(0 <= value <= 255 for colour in spec.palette for value in colour)
    assert all(c == c.strip() for c in spec.class_names)
    encoded = spec.encode(np.array([values], np.uint8), "m.png")
    assert set(encoded.ravel().tolist()) - {255} == set(range(count))
    for value in set(range(256)) - set(values):
        with pytest.raises(ValueError, match=f"the mask holds {value};"):
            spec.encode(np.array([[value]], np.uint8), "m.png")


def test_cityscapes_ids():
    """Some lines of the published table: (id, trainId)."""
    spec = label_sets.cityscapes_ids()
    table = {0: 255, 6: 255, 7: 0, 8: 1, 9: 255, 10: 255, 11: 2, 14: 255, 17: 5, 18: 255, 24: 11, 26: 13}
    table |= {29: 255, 30: 255, 31: 16, 33: 18}
    assert spec.encode(np.array([[*table]], np.uint8), "m.png").tolist() == [[*table.values()]]


def test_ade20k_objects():
    """The numbers of the Places Challenge have the names of its list; walls have no number."""
    spec = label_sets.ade20k_objects()
    encoded = spec.encode(np.arange(101, dtype=np.uint8)[None], "m.png")[0]
    names = {number: spec.class_names[encoded[number]] for number in range(1, 101)}
    known = {1: "bed", 4: "person", 9: "car", 50: "bus", 58: "television receiver", 99: "clock", 100: "flag"}
    assert names.items() >= known.items()
    assert encoded[0] == 255 and "wall" not in names.values() and len(set(names.values())) == 100


def test_reduced_and_whole_pascal_context_agree():
    whole, reduced = label_sets.pascal_context(), label_sets.pascal_context_59()
    raw = np.arange(60, dtype=np.uint8)[None]
    pairs = zip(whole.encode(raw, "m")[0, 1:], reduced.encode(raw, "m")[0, 1:], strict=True)
    assert all(whole.class_names[a] == reduced.class_names[b] for a, b in pairs)
    assert reduced.encode(raw, "m")[0, 0] == 255


def test_the_tables_are_installed():
    settings = configparser.ConfigParser()
    settings.read(REPOSITORY / "setup.cfg")
    patterns = settings["options.package_data"]["seaformer_jax.data.segmentation"].split()
    package = REPOSITORY / "seaformer_jax/data/segmentation"
    declared = {path for pattern in patterns for path in package.glob(pattern)}
    assert declared == {path for path in package.rglob("*.*") if path.suffix not in (".py", ".pyc")}
    assert len(declared) == 5
