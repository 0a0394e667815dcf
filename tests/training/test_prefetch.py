"""Batches that are sent one step ahead."""

import weakref

import jax
import numpy as np
import pytest

from seaformer_jax import mesh as meshes
from seaformer_jax.errors import CorruptImageError
from seaformer_jax.training.prefetch import Prefetched


def batches(error_at: int = -1):
    for number in range(3):
        if number == error_at:
            raise CorruptImageError(f"{number}.jpg: truncated")
        yield {"image": np.full((2, 3), number), "skipped": np.array([number, 0])}


def test_batches_come_in_order_and_skipped_stays_on_the_host():
    upcoming = Prefetched(batches(), meshes.create_mesh())
    for number in range(3):
        batch, skipped = upcoming.take()
        upcoming.fetch()
        assert batch.keys() == {"image"} and isinstance(batch["image"], jax.Array)
        assert (batch["image"] == number).all()
        assert isinstance(skipped, np.ndarray) and skipped.tolist() == [number, 0]


def test_an_error_waits_until_its_batch_is_due():
    upcoming = Prefetched(batches(error_at=1), meshes.create_mesh())
    upcoming.take()
    upcoming.fetch()
    with pytest.raises(CorruptImageError, match=r"1\.jpg: truncated"):
        upcoming.take()


def test_an_error_in_the_first_batch_comes_at_once():
    with pytest.raises(CorruptImageError, match=r"0\.jpg: truncated"):
        Prefetched(batches(error_at=0), meshes.create_mesh())


def test_a_batch_that_was_taken_is_not_held():
    upcoming = Prefetched(batches(), meshes.create_mesh())
    batch, _ = upcoming.take()
    image = weakref.ref(batch["image"])
    del batch
    assert image() is None
