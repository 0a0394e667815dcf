"""What a restart does with checkpoints that are changed, foreign or unreadable: nothing on disk is ever lost."""

import errno
import json
import logging
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from seaformer_jax import mesh as meshes
from seaformer_jax.errors import UserError
from seaformer_jax.training import checkpoint, checkpoint_files
from seaformer_jax.training import state as states
from tests.training import small

SIDE = 300  # Of a matrix that is large enough to be stored in a file of its own.


def state(step: int, optimizer=None, width: int = SIDE) -> states.TrainState:
    """A state with one large matrix of random numbers, which do not compress."""
    matrix = np.random.default_rng(step).standard_normal((width, SIDE)).astype(np.float32)
    params = {"layer": {"kernel": jnp.asarray(matrix)}}
    statistics = {"layers": {0: {"mean": jnp.full(3, float(step))}}}
    return states.TrainState(
        jnp.int32(step), params, statistics, {}, (optimizer or optax.sgd(0.1)).init(params)
    )


@pytest.fixture
def workdir(tmp_path) -> pathlib.Path:
    """A workdir with the checkpoints 1 and 2."""
    checkpoints = open_checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(state(step), step, {"train": float(step)}, None)
        checkpoints.wait()
    checkpoints.close()
    return tmp_path


def open_checkpoints(folder: pathlib.Path) -> checkpoint.Checkpoints:
    return checkpoint.Checkpoints(folder, small.config().checkpoint, "top1")


def files(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("position", [0.1, 0.5, 0.9])
def test_one_flipped_bit_is_noticed(workdir, caplog, position):
    largest = max((workdir / "checkpoints/2/state").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[int(position * len(content))] ^= 1
    largest.write_bytes(content)
    with caplog.at_level(logging.WARNING, logger="absl"):
        restored, clock = open_checkpoints(workdir).restore(state(0))
    assert small.equal(restored, state(1)) and clock == {"train": 1.0}
    assert any("checkpoint 2 is damaged" in message for message in caplog.messages)
    assert small.equal(checkpoint.load_weights(workdir), (1, state(1).params, state(1).batch_stats))


def test_a_changed_checksum_is_noticed(workdir, caplog):
    """The bytes of the array are right, so only the comparison of checksums can see it."""
    path = workdir / "checkpoints/2/checksums/metadata"
    sums = json.loads(path.read_text())
    path.write_text(json.dumps(sums | {"params/layer/kernel": 0}))
    with caplog.at_level(logging.WARNING, logger="absl"):
        assert int(open_checkpoints(workdir).restore(state(0))[0].step) == 1
    assert any("the checksum of" in message for message in caplog.messages)


def test_a_checkpoint_without_checksums_is_read(workdir):
    """Those of version 0.1 have none."""
    shutil.rmtree(workdir / "checkpoints/2/checksums")
    assert int(open_checkpoints(workdir).restore(state(0))[0].step) == 2
    assert checkpoint.load_weights(workdir)[0] == 2


def test_damage_that_another_process_sees_counts_here(workdir, monkeypatch):
    seen = iter([1, 0])  # Another process cannot read the newest checkpoint, and can read the one before it.
    monkeypatch.setattr(meshes, "largest", lambda number: max(number, next(seen)))
    assert int(open_checkpoints(workdir).restore(state(0))[0].step) == 1


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (
            lambda: state(0, optax.sgd(0.1, momentum=0.9)),
            r"1 arrays differ, e.g. opt_state/.*trace.*found none",
        ),
        (
            lambda: state(0, width=SIDE + 1),
            r"1 arrays differ, e.g. params/layer/kernel: found \(300, 300\), expected \(301, 300\)",
        ),
    ],
)
def test_the_checkpoint_of_another_run_is_left_alone(workdir, template, says):
    before = files(workdir / "checkpoints")
    with pytest.raises(UserError, match=rf"2 is the checkpoint of another model or optimiser: {says}"):
        open_checkpoints(workdir).restore(template())
    assert files(workdir / "checkpoints") == before


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (OSError(errno.EACCES, "Permission denied"), "Permission denied"),
        (MemoryError(), "out of memory"),
        (
            RuntimeError("RESOURCE_EXHAUSTED: Out of memory\nStack"),
            "RuntimeError: RESOURCE_EXHAUSTED: Out of memory",
        ),
        (
            ValueError("UNAVAILABLE: the bucket does not answer"),
            "ValueError: UNAVAILABLE: the bucket does not answer",
        ),
    ],
)
def test_trouble_that_may_pass_ends_the_start_and_changes_nothing(workdir, monkeypatch, error, says):
    def fail(*_, **__):
        raise error

    before = files(workdir / "checkpoints")
    with monkeypatch.context() as patch:
        patch.setattr(ocp.PyTreeCheckpointHandler, "restore", fail)
        for read in (
            lambda: open_checkpoints(workdir).restore(state(0)),
            lambda: checkpoint.load_weights(workdir),
        ):
            with pytest.raises(
                UserError, match=rf"2 cannot be read now \({says}\); .*run the same command again"
            ):
                read()
    assert files(workdir / "checkpoints") == before
    assert int(open_checkpoints(workdir).restore(state(0))[0].step) == 2


def test_checksums_are_of_the_values():
    tree = {"a": jnp.arange(6.0).reshape(2, 3).T, "b": [np.int32(5)]}
    sums = checkpoint_files.checksums(tree)
    assert sums == checkpoint_files.checksums(jax.tree.map(np.array, tree))
    assert sums.keys() == {"a", "b/0"}
    tree["a"] = tree["a"].at[0, 0].set(-0.0)  # Equal, but other bytes.
    assert checkpoint_files.checksums(tree)["a"] != sums["a"]
