"""Validation batches: every image once, equal shapes together, for any batch size and number of hosts."""

import collections

import numpy as np
import pytest
from absl import flags

from seaformer_jax import errors
from seaformer_jax.data.buckets import InBatches, sizes
from seaformer_jax.data.labels import LabelSpec
from seaformer_jax.data.segmentation import batches as segmentation_batches
from seaformer_jax.data.segmentation.buckets import Buckets
from seaformer_jax.data.segmentation.transforms import SegmentationEvalTransform
from seaformer_jax.data.sources import SkipCorrupt

SIZES = [
    (30, 30),
    (30, 45),
    (45, 30),
    (64, 64),
    (150, 100),
    (60, 90),
    (40, 40),
    (96, 64),
    (20, 20),
    (300, 300),
]
INPUTS = [(64, 64), (64, 96), (96, 64), (64, 64), (96, 64), (64, 96), (64, 64), (96, 64), (64, 64), (64, 64)]


class Photos:
    """Images of many sizes that hold their index; `broken` ones cannot be decoded, `headless` ones have no size."""

    labels = LabelSpec(("a", "b", "c"))

    def __init__(self, broken=(), headless=()):
        self.broken, self.headless, self.read = broken, headless, []

    def __len__(self) -> int:
        return len(SIZES)

    def size(self, index: int) -> tuple[int, int]:
        if index in self.headless:
            raise errors.CorruptImageError(f"{index}.jpg: no header")
        return SIZES[index]

    def __getitem__(self, index: int) -> dict:
        if index in (*self.broken, *self.headless):
            raise errors.CorruptImageError(f"{index}.jpg: broken")
        self.read.append(index)
        image = np.full((*SIZES[index], 3), 10 + index, np.uint8)
        return {"image": image, "label": np.full(SIZES[index], index % 3, np.uint8)}


@pytest.fixture(scope="module", autouse=True)
def parsed_flags():
    """grain passes absl's flags on to its workers, so they must be parsed."""
    flags.FLAGS.mark_as_parsed()


def transform(scales=(1.0,)) -> SegmentationEvalTransform:
    return SegmentationEvalTransform({"scale": (128, 64), "size_divisor": 32, "scales": scales})


def evaluate(photos=None, policy="skip", scales=(1.0,), **options) -> list[dict]:
    source = SkipCorrupt(photos or Photos(), policy, replace=False)
    options = {"batch_size": 3} | options
    return list(segmentation_batches.eval_batches(source, transform(scales), **options))


def rows(batches: list[dict]) -> dict[int, dict]:
    """Returns the rows with an image, by the image's index."""
    return {
        int(batch["image"][row, 0, 0, 0]) - 10: {name: value[row] for name, value in batch.items()}
        for batch in batches
        for row in np.flatnonzero(batch["mask"])
    }


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_every_image_once_with_those_of_its_shape(batch_size):
    batches = evaluate(batch_size=batch_size)
    assert sum(batch["mask"].sum() for batch in batches) == len(SIZES)
    found = rows(batches)
    assert sorted(found) == list(range(len(SIZES)))
    for index, row in found.items():
        assert row["image"].shape == (*INPUTS[index], 3) and (row["image"] == 10 + index).all()
        assert tuple(row["size"]) == INPUTS[index]
        height, width = SIZES[index]
        assert row["label_size"].tolist() == [height, width]
        assert (row["label"][:height, :width] == index % 3).all()
        assert (row["label"] == 255).sum() == row["label"].size - height * width
        assert row["label"].shape == tuple(-(-side // 128) * 128 for side in SIZES[index])
    assert all(batch["mask"].shape == (batch_size,) for batch in batches)


def test_groups_are_filled_up():
    """There are five groups by the shapes of input and label; only the last batch of each has padding."""
    batches = evaluate(batch_size=3)
    groups = collections.defaultdict(list)
    for batch in batches:
        groups[batch["image"].shape[1:3], batch["label"].shape[1:]].append(batch["mask"].tolist())
    assert groups == {
        ((64, 64), (128, 128)): [[True] * 3, [True, False, False]],
        ((64, 96), (128, 128)): [[True, True, False]],
        ((96, 64), (128, 128)): [[True, True, False]],
        ((96, 64), (256, 128)): [[True, False, False]],
        ((64, 64), (384, 384)): [[True, False, False]],
    }


def test_padding_has_no_image():
    for batch in evaluate(batch_size=8):
        assert not batch["image"][~batch["mask"]].any()
        assert (batch["label"][~batch["mask"]] == 255).all()
        assert not batch["label_size"][~batch["mask"]].any()
        assert not batch["skipped"].any()


def test_the_batch_size_changes_no_row():
    one, eight = rows(evaluate(batch_size=1)), rows(evaluate(batch_size=8))
    assert all(np.array_equal(one[i][name], eight[i][name]) for i in one for name in one[i])


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_hosts_share_every_batch_row_for_row(count):
    whole = evaluate(batch_size=4)
    shares = [evaluate(batch_size=4, process_index=index, process_count=count) for index in range(count)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert all(np.array_equal(batch[name], np.concatenate([p[name] for p in parts])) for name in batch)


def test_workers_change_nothing():
    for a, b in zip(evaluate(), evaluate(workers=2), strict=True):
        assert a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_further_scales():
    for batch in evaluate(scales=(1.0, 0.5, 2.0)):
        side = np.array(batch["image"].shape[1:3])
        assert batch["image_1"].shape[1:3] == tuple(np.ceil(side / 64).astype(int) * 32)
        assert (np.array(batch["image_2"].shape[1:3]) <= 2 * side).all()
        first = [batch[name][batch["mask"], 0, 0, 0].tolist() for name in ("image", "image_1", "image_2")]
        assert first[0] == first[1] == first[2]


def test_images_are_read_once_and_not_to_know_their_shapes():
    photos = Photos()
    source = SkipCorrupt(photos, "error", replace=False)
    shapes = Buckets(sizes(source), transform())
    buckets = InBatches(source, sizes(source), 3, shapes)
    assert not photos.read and len(buckets) == 18
    assert [buckets[i]["label"].shape for i in range(len(buckets))] and sorted(photos.read) == list(range(10))


def test_broken_images_are_left_out_and_counted():
    """Images in the middle of a group, alone in a group, and with a broken header."""
    batches = evaluate(Photos(broken=(3, 4), headless=(0, 9)))
    assert sorted(rows(batches)) == [1, 2, 5, 6, 7, 8]
    assert sum(batch["skipped"].sum() for batch in batches) == 4
    intact = rows(evaluate())
    assert all(np.array_equal(row["image"], intact[index]["image"]) for index, row in rows(batches).items())


@pytest.mark.parametrize("photos", [Photos(broken=(3,)), Photos(headless=(3,))])
def test_a_broken_image_ends_the_evaluation_where_the_policy_says_so(photos):
    with pytest.raises(errors.CorruptImageError, match=r"3.jpg: "):
        evaluate(photos, "error")


def test_all_headers_broken():
    batches = evaluate(Photos(headless=range(len(SIZES))))
    assert not any(batch["mask"].any() for batch in batches)
    assert sum(batch["skipped"].sum() for batch in batches) == len(SIZES)


def test_a_batch_that_hosts_cannot_share_is_refused():
    with pytest.raises(ValueError, match="batch of 3 does not divide among 2 processes"):
        evaluate(process_count=2)
