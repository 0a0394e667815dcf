"""metrics.jsonl and TensorBoard events."""

import json
import pathlib
import struct

import pytest
from tensorboardX.proto import event_pb2

from seaformer_jax.errors import UserError
from seaformer_jax.training import scalars


def write_rows(workdir, *steps: int) -> None:
    reporter = scalars.Reporter(workdir, 0)
    for step in steps:
        reporter.scalars(step, {"train/loss": float(step)})
    reporter.close()


def read_steps(workdir) -> list[int]:
    return [json.loads(row)["step"] for row in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_rows_beyond_the_resumed_step_are_dropped(tmp_path):
    write_rows(tmp_path, 10, 20, 30, 40)
    reporter = scalars.Reporter(tmp_path, 20)
    assert read_steps(tmp_path) == [10, 20]
    reporter.scalars(30, {"val/top1": 5.0})
    assert read_steps(tmp_path) == [10, 20, 30]  # On disk at once.
    reporter.close()
    assert any((tmp_path / "tensorboard").iterdir())


def test_a_torn_row_is_dropped(tmp_path):
    write_rows(tmp_path, 10, 20)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "val/to')
    scalars.Reporter(tmp_path, 20).close()
    assert read_steps(tmp_path) == [10, 20]


@pytest.mark.parametrize(
    "content",
    [
        b'{"step": 10}\n{"step": \n{"step": 20}\n',
        b'[1, 2]\n{"step": 20}\n',
        b'{"loss": 1}\n{"step": 20}\n',
        b'{"step": "10"}\n{"step": 20}\n',
        b"\xff\xfe\n",
    ],
)
def test_damaged_metrics_are_an_error_and_stay(tmp_path, content):
    (tmp_path / "metrics.jsonl").write_bytes(content)
    with pytest.raises(
        UserError, match=r"metrics\.jsonl (is damaged: line [12] is|cannot be read) .*move it away"
    ):
        scalars.Reporter(tmp_path, 20)
    assert (tmp_path / "metrics.jsonl").read_bytes() == content


def test_metrics_that_are_a_folder_are_an_error(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(UserError, match=r"metrics\.jsonl cannot be read .*Is a directory"):
        scalars.Reporter(tmp_path, 20)


def read_events(folder: pathlib.Path) -> list[event_pb2.Event]:
    """Reads TensorBoard's records: length, its checksum, the event, its checksum."""
    (path,) = folder.iterdir()
    content, events = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        events.append(event_pb2.Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return events


def test_events_are_those_of_tensorboard(tmp_path):
    reporter = scalars.Reporter(tmp_path, 20)
    reporter.scalars(30, {"val/top1": 5.0, "val/loss": 0.5})
    reporter.close()
    version, start, values = read_events(tmp_path / "tensorboard")
    assert version.file_version == "brain.Event:2"
    # Events of a killed run, from step 21 on, are hidden.
    assert (start.step, start.session_log.status) == (21, event_pb2.SessionLog.START)
    assert values.step == 30 and values.wall_time >= start.wall_time > 1e9
    assert {value.tag: value.simple_value for value in values.summary.value} == {
        "val/top1": 5.0,
        "val/loss": 0.5,
    }


@pytest.mark.parametrize("open_file", [scalars.Reporter, scalars._Events])
def test_a_full_disk_is_an_error_and_no_endless_wait(disk, open_file):
    folder = disk.folder / "files"
    folder.mkdir()
    file = open_file(folder, 0)
    disk.fill()
    with pytest.raises(OSError, match="No space left"):
        for step in range(10_000):  # More than what buffers and begun blocks hold.
            file.scalars(step, {"train/loss": 1.0})


def test_a_run_that_starts_on_a_full_disk_keeps_its_rows(disk):
    write_rows(disk.folder, *range(1000))
    before = (disk.folder / "metrics.jsonl").read_bytes()
    disk.fill()
    with pytest.raises(OSError, match="No space left"):
        scalars.Reporter(disk.folder, 900)
    assert (disk.folder / "metrics.jsonl").read_bytes() == before
