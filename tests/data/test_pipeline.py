"""The input pipeline: a batch depends on the seed and its number alone."""

import collections
import multiprocessing
import os
import pathlib
import signal

import grain
import numpy as np
import pytest
from absl import flags
from PIL import Image

from seaformer_jax import errors
from seaformer_jax.data import pipeline
from seaformer_jax.data.classification import sources
from seaformer_jax.data.sources import SkipCorrupt

SIZE, BATCH = 22, 8  # An epoch is two and three quarter batches, so epochs end within batches.


class Numbers:
    """A source whose elements hold their index."""

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> dict:
        return {"image": np.full((2, 2, 3), index, np.uint8), "label": index, "skipped": 0}


class Noise(grain.transforms.RandomMap):
    def random_map(self, element: dict, rng: np.random.Generator) -> dict:
        return {**element, "draw": rng.random()}


class Corner(grain.transforms.Map):
    def map(self, element: dict) -> dict:
        return {**element, "image": element["image"][:1, :1]}


@pytest.fixture(scope="module", autouse=True)
def parsed_flags():
    """grain passes absl's flags on to its workers, so they must be parsed."""
    flags.FLAGS.mark_as_parsed()


def train(count: int, **options) -> list[dict]:
    batches = pipeline.train_batches(Numbers(), Noise(), **{"batch_size": BATCH, "seed": 3} | options)
    found = [next(batches) for _ in range(count)]
    batches.close()
    return found


def evaluate(source=None, **options) -> list[dict]:
    return list(
        pipeline.eval_batches(
            Numbers() if source is None else source, Corner(), **{"batch_size": BATCH} | options
        )
    )


def same(found: list[dict], expected: list[dict]) -> bool:
    return all(
        a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)
        for a, b in zip(found, expected, strict=True)
    )


def column(batches: list[dict], name: str) -> np.ndarray:
    return np.concatenate([batch[name] for batch in batches])


@pytest.fixture(scope="module")
def eleven():
    """The first eleven batches, which are four whole epochs."""
    return train(11)


def test_batches_are_stacked_elements(eleven):
    batch = eleven[0]
    assert batch["image"].shape == (BATCH, 2, 2, 3) and batch["image"].dtype == np.uint8
    assert np.array_equal(batch["image"][:, 0, 0, 0], batch["label"])


def test_every_epoch_is_another_permutation(eleven):
    labels = column(eleven, "label")
    epochs = labels.reshape(4, SIZE)
    assert all(sorted(epoch) == list(range(SIZE)) for epoch in epochs.tolist())
    assert len({tuple(epoch) for epoch in epochs.tolist()} | {tuple(range(SIZE))}) == 5


def test_transforms_draw_anew_for_every_position(eleven):
    assert len(set(column(eleven, "draw"))) == 11 * BATCH


def test_the_seed_changes_order_and_draws(eleven):
    other = train(11, seed=4)
    assert not np.array_equal(column(other, "label"), column(eleven, "label"))
    assert not set(column(other, "draw")) & set(column(eleven, "draw"))


@pytest.mark.parametrize("start", [1, 4, 9])
def test_a_resumed_run_sees_the_rest(eleven, start):
    assert same(train(11 - start, start_step=start), eleven[start:])


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_share_a_batch_row_for_row(eleven, count):
    shares = [train(11, process_index=index, process_count=count) for index in range(count)]
    whole = [{name: column(rows, name) for name in rows[0]} for rows in zip(*shares, strict=True)]
    assert same(whole, eleven)


def test_a_batch_that_processes_cannot_share_is_refused():
    with pytest.raises(errors.UserError, match="batch of 8 does not divide among 3 processes"):
        train(1, process_count=3)


def test_workers_change_nothing(eleven):
    found = train(9, workers=2, start_step=2)
    assert same(found, eleven[2:])
    assert all(type(value) is np.ndarray for batch in found for value in batch.values())


@pytest.mark.parametrize("batch_size, workers", [(1, 0), (7, 0), (7, 2), (11, 0), (22, 0), (32, 0)])
def test_evaluation_sees_every_element_once_in_order(batch_size, workers):
    batches = evaluate(batch_size=batch_size, workers=workers)
    assert all(len(batch["label"]) == batch_size for batch in batches)
    assert len(batches) == -(-SIZE // batch_size)
    mask = column(batches, "mask")
    assert mask.dtype == bool
    assert np.array_equal(np.flatnonzero(mask), np.arange(SIZE))
    assert np.array_equal(column(batches, "label")[mask], np.arange(SIZE))


def test_evaluation_of_several_processes():
    whole = evaluate()
    shares = [evaluate(process_index=index, process_count=4) for index in range(4)]
    assert same([{name: column(rows, name) for name in rows[0]} for rows in zip(*shares, strict=True)], whole)


def test_evaluation_of_an_empty_source_ends_at_once():
    assert evaluate([]) == []


class Broken(Numbers):
    """A source for `SkipCorrupt` with two files that cannot be decoded."""

    labels = None

    def __getitem__(self, index: int) -> dict:
        if index in (5, SIZE - 1):
            raise errors.CorruptImageError(f"{index}.jpg: broken")
        return super().__getitem__(index)


def test_skipped_images_are_masked_and_counted_once():
    """Also the last image of the data set, whose copies fill the last batch."""
    batches = evaluate(SkipCorrupt(Broken(), "skip", replace=False))
    mask = column(batches, "mask")
    assert np.array_equal(np.flatnonzero(mask), sorted(set(range(SIZE)) - {5, SIZE - 1}))
    assert column(batches, "skipped").sum() == 2


def test_skipped_images_of_a_training_epoch_are_counted():
    options = {"batch_size": SIZE, "seed": 3}
    batches = pipeline.train_batches(SkipCorrupt(Broken(), "skip"), Noise(), **options)
    batch = next(batches)
    batches.close()
    assert batch["skipped"].sum() == 2
    # Image 6 also replaces its broken neighbour, 5.
    assert collections.Counter(batch["label"].tolist())[6] == 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of twelve files; the last one is not an image."""
    root = tmp_path_factory.mktemp("folder")
    for index in range(12):
        path = root / f"train/{'ab'[index % 2]}/{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6, 6, 3), index, np.uint8)).save(path)
    path.write_bytes(b"no image")
    return root


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_image_is_an_error_with_its_path(folder, workers):
    guard = SkipCorrupt(sources.ImageFolder(folder, "train"), "error")
    batches = pipeline.train_batches(guard, Noise(), batch_size=4, seed=0, workers=workers)
    with pytest.raises(errors.UserError) as error:
        for _ in range(3):
            next(batches)
    assert str(error.value) == f"{folder}/train/b/11.png: cannot identify image file (8 bytes)"


def test_a_corrupt_image_is_skipped_in_a_worker(folder):
    guard = SkipCorrupt(sources.ImageFolder(folder, "train"), "skip")
    batches = pipeline.train_batches(guard, Noise(), batch_size=12, seed=0, workers=2)
    assert [next(batches)["skipped"].sum() for _ in range(3)] == [1, 1, 1]
    batches.close()


def test_a_killed_worker_is_a_user_error():
    batches = pipeline.train_batches(Numbers(), Noise(), batch_size=BATCH, seed=3, workers=1)
    next(batches)
    (worker,) = multiprocessing.active_children()
    worker.kill()
    with pytest.raises(errors.UserError, match=r"a data worker was killed.*lower data\.workers"):
        for _ in range(10):  # Some batches are ready.
            next(batches)


def blocked_signals(process: str) -> set[int]:
    """The signals that a process blocks, from the hexadecimal mask of Linux."""
    status = pathlib.Path(f"/proc/{process}/status").read_text().splitlines()
    (mask,) = (int(line.split()[1], 16) for line in status if line.startswith("SigBlk:"))
    return {number for number in range(1, 64) if mask >> (number - 1) & 1}


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_leave_ctrl_c_and_sigterm_to_the_main_process(workers):
    """From their birth on: while they import, they have no handlers of their own."""
    before = blocked_signals("thread-self")
    batches = pipeline.train_batches(Numbers(), Noise(), batch_size=BATCH, seed=3, workers=workers)
    next(batches)
    found = [blocked_signals(worker.pid) for worker in multiprocessing.active_children()]
    batches.close()
    assert len(found) == workers
    assert all({signal.SIGINT, signal.SIGTERM} <= blocked for blocked in found)
    assert blocked_signals("thread-self") == before


def test_systems_without_affinities_use_all_cores(monkeypatch, eleven):
    monkeypatch.delattr(os, "sched_getaffinity")
    assert same(train(1), eleven[:1])
