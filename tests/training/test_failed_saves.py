"""Saves that fail: one line, no thread that goes on waiting, and the checkpoint before is kept."""

import collections
import contextlib
import pathlib
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seaformer_jax.errors import UserError
from seaformer_jax.training import checkpoint
from seaformer_jax.training import state as states
from tests.training import small
from tests.training.small_disk import SmallDisk

Usage = collections.namedtuple("Usage", "total used free")


def state(step: int) -> states.TrainState:
    """A state of 1 MB of random numbers, which do not compress."""
    params = {"kernel": jnp.asarray(np.random.default_rng(step).standard_normal(2**18), jnp.float32)}
    return states.TrainState(jnp.int32(step), params, {}, {}, optax.sgd(0.1).init(params))


def open_checkpoints(workdir: pathlib.Path) -> checkpoint.Checkpoints:
    return checkpoint.Checkpoints(workdir, small.config().checkpoint, "top1")


def save(checkpoints: checkpoint.Checkpoints, step: int) -> None:
    checkpoints.save(state(step), step, {}, None)
    checkpoints.wait()


def remove(disk: SmallDisk) -> None:
    shutil.rmtree(disk.folder / "checkpoints")


def replace_by_a_file(disk: SmallDisk) -> None:
    (disk.folder / "checkpoints").rename(disk.folder / "elsewhere")
    (disk.folder / "checkpoints").write_text("")


def busy_threads() -> set[threading.Thread]:
    """The threads of this process, without those of asyncio, which wait for work and do not keep it from ending."""
    return {thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")}


def all_end(threads: set[threading.Thread]) -> bool:
    """Whether the threads end soon: far sooner than the five minutes for which orbax's may wait."""
    for thread in threads:
        threading.Thread.join(thread, 30)  # The method of orbax's own threads raises their error once more.
    return not any(thread.is_alive() for thread in threads)


@pytest.fixture
def unnoticed(monkeypatch):
    """The space is checked before another process fills the disk."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: path.stat() and Usage(2**40, 0, 2**40))


@pytest.mark.parametrize(
    ("spoil", "says", "kept"),
    [
        (remove, "No such file or directory.*checkpoints kept: none", []),
        (replace_by_a_file, "Not a directory.*checkpoints kept: none", []),
        (
            lambda disk: disk.fill(room=2**19),
            r"No space left on device.*checkpoints kept: 1\.",
            [1],
        ),
        (SmallDisk.fill, r"No space left on device.*checkpoints kept: 1\.", [1]),
        (SmallDisk.make_read_only, r"Read-only file system.*checkpoints kept: 1\.", [1]),
    ],
)
def test_a_save_that_fails_is_one_line(disk, unnoticed, spoil, says, kept):
    checkpoints = open_checkpoints(disk.folder)
    save(checkpoints, 1)
    threads = busy_threads()
    spoil(disk)
    with pytest.raises(
        UserError, match=rf"^the checkpoint of step 2 cannot be written to .*{says}.*to resume$"
    ):
        checkpoints.save(state(2), 2, {}, None)
        checkpoints.close()
    with contextlib.suppress(UserError):  # Orbax may raise the same error again.
        checkpoints.close()
    assert all_end(busy_threads() - threads)
    assert checkpoint.saved_steps(disk.folder) == kept


def test_a_run_goes_on_when_there_is_room_again(disk, unnoticed):
    checkpoints = open_checkpoints(disk.folder)
    save(checkpoints, 1)
    disk.fill(room=2**19)
    with pytest.raises(UserError, match="No space left on device"):
        save(checkpoints, 2)
    checkpoints.close()
    disk.make_room()
    folder = disk.folder / "checkpoints"
    assert len(list(folder.iterdir())) == 2  # What was written of checkpoint 2 is still there.
    checkpoints = open_checkpoints(disk.folder)
    assert [path.name for path in folder.iterdir()] == ["1"]
    assert small.equal(checkpoints.restore(state(0))[0], state(1))
    save(checkpoints, 2)
    checkpoints.close()
    assert checkpoint.saved_steps(disk.folder) == [1, 2]


def test_the_space_for_a_small_state_includes_files_and_metadata(disk):
    """While `check_space` says that a checkpoint of a few bytes fits, it does."""
    disk.fill(room=2**20)
    checkpoints = open_checkpoints(disk.folder)
    tiny = jax.tree.map(lambda array: array[:1] if array.ndim else array, state(1))
    with pytest.raises(UserError, match="MB free and a checkpoint takes"):
        for step in range(1, 100):
            checkpoints.save(tiny, step, {}, {"top1": float(step)})
            checkpoints.wait()
            (disk.folder / f"other-{step}").write_bytes(bytes(2**16))
    checkpoints.close()
    assert small.equal(open_checkpoints(disk.folder).restore(tiny)[0], tiny)
