"""Fixtures of several test files of this folder."""

import pytest

from tests.training.small_disk import SmallDisk


@pytest.fixture
def disk(tmp_path):
    mounted = SmallDisk(tmp_path / "disk")
    yield mounted
    mounted.unmount()
