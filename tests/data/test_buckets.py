"""The order of training elements whose batches are of one group, and batches for validation."""

import pickle

import numpy as np

from seaformer_jax.data.buckets import InBatches, Shuffled

GROUPS = np.array([0, 1, 0, 0, 1, 0, 0, 0, 1, 0])  # Seven and three.


def epoch(number: int, seed: int = 0, batch: int = 4) -> np.ndarray:
    shuffled = Shuffled(range(10), GROUPS, batch, seed)
    return np.array([[shuffled[number * 12 + 4 * b + r] for r in range(batch)] for b in range(3)])


def test_batches_are_of_one_group_and_an_epoch_has_every_element():
    for number in range(4):
        batches = epoch(number)
        assert all(len(set(GROUPS[batch])) == 1 for batch in batches)
        assert set(batches.ravel()) == set(range(10))
        assert np.bincount(batches.ravel()).max() <= 2  # Two repetitions fill up the batches.


def test_every_epoch_and_seed_has_its_own_order():
    orders = [epoch(0).tolist(), epoch(1).tolist(), epoch(0, seed=1).tolist()]
    assert orders[0] == epoch(0).tolist() and all(orders[0] != other for other in orders[1:])


def test_workers_get_the_same_order():
    shuffled = Shuffled(range(10), GROUPS, 4, 0)
    before = shuffled[3]
    assert pickle.loads(pickle.dumps(shuffled))[3] == before


def test_a_group_smaller_than_a_batch_fills_one():
    shuffled = Shuffled(range(2), np.array([0, 0]), 5, 0)
    assert sorted(shuffled[i] for i in range(5)) in ([0, 0, 0, 1, 1], [0, 0, 1, 1, 1])


class Layout:
    """The shape of an element is its own; blanks are -1."""

    def shapes_of(self, size):
        return size

    def make(self, element, shapes):
        return {"value": element["value"]}

    def blank(self, shapes):
        return {"value": -1}


def test_only_what_is_missing_to_whole_batches_is_padded_and_broken_images_are_counted():
    source = [{"value": i, "skipped": i == 2} for i in range(7)]
    all_sizes = [(1, 1) if i < 4 else (2, 2) for i in range(7)]
    batches = InBatches(source, all_sizes, 2, Layout())
    found = [batches[i] for i in range(len(batches))]
    assert [row["value"] for row in found] == [0, 1, -1, 3, 4, 5, 6, -1]
    assert [bool(row["mask"]) for row in found] == [True, True, False, True, True, True, True, False]
    assert [row["skipped"] for row in found] == [0, 0, 1, 0, 0, 0, 0, 0]
