"""A small run in each kind of bucket; `tests/commands/test_buckets.py` has the commands, killed and resumed."""

import pytest
from etils import epath

from seaformer_jax.errors import UserError
from seaformer_jax.training import checkpoint, lock, loop
from tests.training import small


def train(workdir, before_batch=lambda number, batch: batch) -> None:
    config = small.config(eval__every=0)
    task = small.StandIn(config, before_batch)
    with lock.held(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
        loop.train(config, task, task.create_model(), workdir)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Workdir of a local run that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("reference")
    train(workdir)
    return workdir


def fail_at(step: int):
    def before_batch(number: int, batch: dict) -> dict:
        if number == step:
            raise UserError("no such image")
        return batch

    return before_batch


def test_an_interrupted_run_goes_on_bit_for_bit(bucket, reference):
    workdir = epath.Path(bucket) / "small"
    with pytest.raises(UserError, match="no such image"):
        train(workdir, fail_at(9))
    assert checkpoint.saved_steps(workdir) == [8, 9]
    # What a killed save leaves behind: some files, but not the one that says that all are there.
    unfinished = workdir / "checkpoints/10/state/manifest.ocdbt"
    unfinished.write_text("begun")
    assert checkpoint.saved_steps(workdir) == [8, 9]
    train(workdir)
    assert not unfinished.exists() and checkpoint.saved_steps(workdir)[-1] == 12
    for use_ema in (False, True):
        assert small.equal(
            checkpoint.load_weights(workdir, use_ema), checkpoint.load_weights(reference, use_ema)
        )
    for name in ("train/loss", "train/lr", "val/loss"):
        assert small.curve(workdir, name)[12] == small.curve(reference, name)[12]
    assert checkpoint.had_checkpoints(workdir)


@pytest.mark.parametrize("name", ["state/manifest.ocdbt", "checksums/metadata", "clock/metadata"])
def test_damage_is_noticed(bucket, reference, name, caplog):
    """The checkpoint before the damaged one is used, as in a local folder."""
    workdir = epath.Path(bucket) / "damaged" / name.replace("/", "_")
    for file in reference.rglob("*"):
        if file.is_file():
            (workdir / file.relative_to(reference).as_posix()).write_bytes(file.read_bytes())
    assert checkpoint.saved_steps(workdir) == checkpoint.saved_steps(reference) == [8, 12]
    (workdir / "checkpoints/12" / name).write_bytes(b"")
    train(workdir)
    assert "checkpoint 12 is damaged" in caplog.text
    assert small.equal(checkpoint.load_weights(workdir, False), checkpoint.load_weights(reference, False))
