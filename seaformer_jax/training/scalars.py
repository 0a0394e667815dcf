"""Writes the scalars of a run into its workdir: metrics.jsonl and TensorBoard events."""

import json
import pathlib
import time
from typing import Any

import jax
from absl import logging
from etils import epath
from flax.traverse_util import flatten_dict

from seaformer_jax.errors import UserError
from seaformer_jax.paths import Spool
from seaformer_jax.training.reporting import results_line

_FLUSH_SECONDS = 120  # Time between two flushes of the TensorBoard events, which wait for the disk.
_MOVE = "correct it or move it away, then run the same command again"


class Reporter:
    """Writes the scalars of a run; only the first process writes.

    Args:
        workdir: Work directory of the run.
        start_step: Step at which the run starts or resumes. Rows of later steps, which a killed run left behind, are
            dropped, and so is an incomplete last row.
    Raises:
        UserError: metrics.jsonl is damaged; it is not changed.
        OSError: The files cannot be written; every method may raise it.
    """

    def __init__(self, workdir: epath.Path, start_step: int):
        self.active = jax.process_index() == 0
        if not self.active:
            return
        path, self._spool = workdir / "metrics.jsonl", Spool(workdir)
        rows = _rows_until(start_step, path) if path.exists() else []
        # A new file takes the place of the old one: on a full disk, writing into the old one would empty it.
        path = self._spool.folder / path.name
        kept = path.with_suffix(".jsonl.tmp")
        kept.write_text("".join(f"{row}\n" for row in rows))
        kept.replace(path)
        self._file = path.open("a", buffering=1)  # Line by line, so that a killed run leaves all its rows.
        self._events = _Events(self._spool.folder / "tensorboard", start_step)
        self.sync()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Appends the row `{"step": ..., name: value, ...}` to metrics.jsonl, and TensorBoard events."""
        if not self.active:
            return
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._events.scalars(step, values)

    def results(self, step: int, scores: dict[str, dict[str, float]]) -> None:
        """Logs a line for each entry of `scores` ("val" -> metrics, ...) and appends one row with all of them."""
        for name, metrics in scores.items():
            logging.info("%s", results_line(step, metrics, name))
        self.scalars(step, flatten_dict(scores, sep="/"))

    def sync(self) -> None:
        """Brings a bucket up to date; a checkpoint must not be newer than the rows before it, or they are lost."""
        if self.active:
            self._events.flush()
            self._spool.sync()

    def close(self) -> None:
        """Closes the files."""
        if self.active:
            self._file.close()
            self._events.close()
            self._spool.close()


class _Events:
    """A file of TensorBoard events.

    tensorboardX's `EventsWriter` writes at once and raises errors. Its `SummaryWriter` writes in a thread, which ends
    on a full disk; then the next events wait for that thread without end.
    """

    def __init__(self, folder: pathlib.Path, start_step: int):
        # Imported here, because it imports PyTorch if installed: a second for every command.
        from tensorboardX import event_file_writer, proto

        self._proto = proto
        folder.mkdir(exist_ok=True)
        self._writer = event_file_writer.EventsWriter(str(folder / "events"))
        # TensorBoard hides the events from this step on that are already in the files.
        session = proto.event_pb2.SessionLog(status=proto.event_pb2.SessionLog.START)
        self._append(step=start_step + 1, session_log=session)
        self.flush()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        summary = self._proto.summary_pb2.Summary()
        for name, value in values.items():
            summary.value.add(tag=name, simple_value=value)
        self._append(step=step, summary=summary)
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def _append(self, **fields: Any) -> None:
        self._writer.write_event(self._proto.event_pb2.Event(wall_time=time.time(), **fields))

    def flush(self) -> None:
        """Hands the events to the file system."""
        self._writer.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        self._writer.close()


def _rows_until(step: int, path: epath.Path) -> list[str]:
    """Returns the rows of metrics.jsonl up to `step`, without a last row that is incomplete."""
    try:
        rows = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); {_MOVE}") from error
    kept = []
    for number, row in enumerate(rows, 1):
        found = _step(row)
        if found is None and number < len(rows):
            raise UserError(
                f"{path} is damaged: line {number} is {row[:40]!r}, expected a step with metrics; {_MOVE}"
            )
        # A last row that is no row was cut off when the machine went down or the disk was full.
        if found is not None and found <= step:
            kept.append(row)
    return kept


def _step(row: str) -> int | None:
    """Returns the step of a row of metrics.jsonl; None if it is not a row."""
    try:
        content = json.loads(row)
    except json.JSONDecodeError:
        return None
    step = content.get("step") if isinstance(content, dict) else None
    return step if isinstance(step, int) else None
