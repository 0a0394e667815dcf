"""Batch t is a function of the seed and t: not of workers, processes or the step that a run resumes at."""

import grain
import numpy as np
import pytest
from absl import flags

from seaformer_jax.data import pipeline
from seaformer_jax.data.labels import LabelSpec
from seaformer_jax.data.sources import ReadGuard
from seaformer_jax.errors import CorruptImageError, UserError

COUNT, BATCH = 10, 4


class Numbers:
    """Element i is the number i; `corrupt` ones cannot be read."""

    labels = LabelSpec(tuple(str(i) for i in range(COUNT)))

    def __init__(self, corrupt: tuple[int, ...] = ()):
        self.corrupt = corrupt

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> dict:
        if index in self.corrupt:
            raise CorruptImageError(f"file{index}.jpg: truncated")
        return {"image": np.full((1, 1, 3), index, np.uint8), "label": np.int32(index)}


class Draw(grain.transforms.RandomMap):
    """Adds a random number to each element."""

    def random_map(self, element: dict, rng: np.random.Generator) -> dict:
        return element | {"draw": rng.integers(1 << 30)}


class Crop(grain.transforms.Map):
    """Makes all images one size, the blank one of a skipped file too."""

    def map(self, element: dict) -> dict:
        return element | {"image": element["image"][:1, :1], "label": np.int32(element["label"])}


@pytest.fixture(autouse=True, scope="module")
def parsed_flags():
    """Workers are spawned by grain's multiprocessing, which wants absl's flags parsed."""
    flags.FLAGS.mark_as_parsed()


def train(count: int, source=None, **options) -> list[dict]:
    source = source or ReadGuard(Numbers(), "error")
    batches = pipeline.train_batches(source, Draw(), batch_size=BATCH, seed=3, **options)
    try:
        return [next(batches) for _ in range(count)]
    finally:
        batches.close()


def assert_equal(ours: list[dict], theirs: list[dict]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


@pytest.fixture(scope="module")
def reference() -> list[dict]:
    return train(10)


def test_every_epoch_is_another_permutation(reference):
    order = np.concatenate([batch["label"] for batch in reference])
    epochs = order.reshape(-1, COUNT)
    assert (np.sort(epochs) == np.arange(COUNT)).all()
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)
    draws = np.concatenate([batch["draw"] for batch in reference])
    assert len(set(draws)) == len(draws)  # The same image is augmented anew in every epoch.


def test_another_seed_is_another_order(reference):
    batches = pipeline.train_batches(ReadGuard(Numbers(), "error"), Draw(), batch_size=BATCH, seed=4)
    other = [next(batches)["label"] for _ in range(3)]
    batches.close()
    assert not all((a == b["label"]).all() for a, b in zip(other, reference, strict=False))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_resumes_with_any_number_of_workers(reference, workers):
    assert_equal(train(6, start_step=4, workers=workers), reference[4:])


def test_two_processes_make_the_batches_of_one(reference):
    halves = [train(10, process_index=index, process_count=2) for index in range(2)]
    joined = [{name: np.concatenate([a[name], b[name]]) for name in a} for a, b in zip(*halves, strict=True)]
    assert_equal(joined, reference)


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_sees_every_image_once(workers):
    source = ReadGuard(Numbers(), "error", replace=False)
    batches = list(pipeline.eval_batches(source, Crop(), batch_size=BATCH, workers=workers))
    labels = np.concatenate([batch["label"] for batch in batches])
    mask = np.concatenate([batch["mask"] for batch in batches])
    assert len(labels) == 12
    np.testing.assert_array_equal(labels[mask], np.arange(COUNT))
    assert not mask[COUNT:].any()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_file_stops_training_with_its_name(workers):
    with pytest.raises(UserError, match=r"^file7\.jpg: truncated"):
        train(4, ReadGuard(Numbers(corrupt=(7,)), "error"), workers=workers)


def test_a_skipped_file_is_replaced_and_counted():
    batches = train(5, ReadGuard(Numbers(corrupt=(7,)), "skip"))
    labels = np.concatenate([batch["label"] for batch in batches])
    assert 7 not in labels
    assert sum(batch["skipped"].sum() for batch in batches) == 2  # Once in each of two epochs.


def test_evaluation_masks_a_skipped_file():
    source = ReadGuard(Numbers(corrupt=(7,)), "skip", replace=False)
    batches = list(pipeline.eval_batches(source, Crop(), batch_size=BATCH))
    mask = np.concatenate([batch["mask"] for batch in batches])
    np.testing.assert_array_equal(np.flatnonzero(~mask), [7, 10, 11])


def test_batches_must_divide_among_processes():
    with pytest.raises(ValueError, match="does not divide among 3 processes"):
        train(1, process_index=0, process_count=3)
