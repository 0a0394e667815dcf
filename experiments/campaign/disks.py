"""Runs whose disk fails: flipped bits in checkpoints, no room, and a folder of checkpoints that is removed."""

import contextlib
import pathlib
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import NamedTuple

from experiments.campaign import recipe
from experiments.campaign.kills import Reference
from experiments.campaign.outcome import Outcome, Verdict, describe, verdict_of
from experiments.campaign.run import LIMIT, Run, closed, compared, completed, wait

FLIPS, FULL, REMOVED = "flipped bits", "full disk", "removed folder"
_ROOM = 64 << 20  # Bytes of the small file system: a checkpoint with its files takes less than one MB.
_NO_ROOM = 64 << 10


class Flip(NamedTuple):
    """A bit to flip in the newest checkpoint; all are shares in [0, 1): of the files, of its bytes, of the bits."""

    file: float
    byte: float
    bit: float


def flips(count: int, seed: int) -> list[Flip]:
    """Returns the bits to flip."""
    rng = random.Random(seed)
    return [Flip(rng.random(), rng.random(), rng.random()) for _ in range(count)]


def half_run(folder: pathlib.Path, reference: Reference) -> None:
    """Writes a run that was killed after some checkpoints; the cases start from copies of it."""
    run = Run(folder, reference.cache)
    command = run.start()
    wait(command, lambda: run.newest() >= recipe.STEPS // 2)
    command.send_signal(9)
    command.end(LIMIT)


def flip(folder: pathlib.Path, half: pathlib.Path, bit: Flip, reference: Reference) -> Outcome:
    """Flips a bit in the newest checkpoint of a copy of the run `half`, and finishes it.

    Right are the result of the undisturbed run, or a refusal in one line that leaves the run as it is: with the bit
    flipped back, it finishes.
    """
    shutil.copytree(half, folder)
    run = Run(folder, reference.cache)
    path, undo = _flip(folder / "checkpoints" / str(run.newest()), bit)
    name = f"a bit of {path.relative_to(folder)}"
    ended = run.finish()
    verdict, detail = verdict_of(ended, (0, 2)), describe(ended)
    if verdict is Verdict.GOOD and ended.status == 0:
        resumed = "resuming at step" in ended.stderr
        verdict, detail = compared(run, reference.result) if resumed else (Verdict.LOST, describe(ended))
    elif verdict is Verdict.GOOD:
        undo()
        verdict, detail = completed(run, reference.result)
    return closed(Outcome(FLIPS, name, verdict, detail if verdict is not Verdict.GOOD else ""), folder)


def _flip(checkpoint: pathlib.Path, bit: Flip) -> tuple[pathlib.Path, Callable[[], object]]:
    """Flips the bit; returns the path of the file, and the function that flips it back."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.stat().st_size)
    path = files[int(bit.file * len(files))]
    content = path.read_bytes()
    changed = bytearray(content)
    changed[int(bit.byte * len(content))] ^= 1 << int(bit.bit * 8)
    path.write_bytes(changed)
    return path, lambda: path.write_bytes(content)


def removed(folder: pathlib.Path, share: float, reference: Reference) -> Outcome:
    """Removes the checkpoints of a run while it trains.

    Right is one line, and one more line at the next start instead of a run that begins anew; or a run that goes on
    and has the result of the undisturbed one.
    """
    run = Run(folder, reference.cache)
    command, step = run.start(), _step(share)
    wait(command, lambda: run.step() >= step and run.newest() > 0)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    ended = command.end(LIMIT)
    verdict, detail = verdict_of(ended, (0, 2)), describe(ended)
    if verdict is Verdict.GOOD and ended.status == 0:
        verdict, detail = compared(run, reference.result)
    elif verdict is Verdict.GOOD and not run.newest():
        again = run.finish()
        verdict, detail = verdict_of(again, (2,)), describe(again)
    elif verdict is Verdict.GOOD:  # The line came after a save into a new folder.
        verdict, detail = completed(run, reference.result)
    case = "the checkpoints of a run are removed while it trains"
    return closed(Outcome(REMOVED, case, verdict, detail if verdict is not Verdict.GOOD else ""), folder)


def too_small(folder: pathlib.Path, reference: Reference) -> Outcome:
    """Starts a run on a disk that has no room for a checkpoint; right is one line."""

    def attempt(run: Run) -> tuple[Verdict, str]:
        ended = run.finish()
        return verdict_of(ended, (2,)), describe(ended)

    return _on_small_disk("the disk has no room for a checkpoint", folder, _NO_ROOM, reference, attempt)


def filled(folder: pathlib.Path, share: float, reference: Reference) -> Outcome:
    """Fills the disk of a run; right is one line, and a run that goes on when there is room again."""

    def attempt(run: Run) -> tuple[Verdict, str]:
        return _filled(run, _step(share), reference)

    return _on_small_disk("the disk is filled while a run trains", folder, _ROOM, reference, attempt)


def _on_small_disk(
    case: str,
    folder: pathlib.Path,
    size: int,
    reference: Reference,
    attempt: Callable[[Run], tuple[Verdict, str]],
) -> Outcome:
    """Calls `attempt` with a run on a file system of `size` bytes, if one can be mounted."""
    try:
        with _mounted(folder, size):
            verdict, detail = attempt(Run(folder / "run", reference.cache))
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        return Outcome(
            FULL, case, Verdict.NOT_RUN, f"no file system can be mounted: {' '.join(said.split())}"
        )
    return closed(Outcome(FULL, case, verdict, detail if verdict is not Verdict.GOOD else ""), folder)


def _filled(run: Run, step: int, reference: Reference) -> tuple[Verdict, str]:
    """Fills the disk when the run has come to `step`, makes room again when it has ended, and finishes it."""
    command, filler = run.start(), run.folder.parent / "filler"
    wait(command, lambda: run.step() >= step and run.newest() > 0)
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(1 << 16)):
            pass
    ended = command.end(LIMIT)
    filler.unlink()
    verdict = verdict_of(ended, (2,))
    if verdict is not Verdict.GOOD:
        return verdict, describe(ended)
    return completed(run, reference.result)


def _step(share: float) -> int:
    """Returns a step in the middle of a run, after its first checkpoint and before its last."""
    return int((0.2 + 0.6 * share) * recipe.STEPS)


@contextlib.contextmanager
def _mounted(folder: pathlib.Path, size: int) -> Iterator[None]:
    """Mounts a file system of `size` bytes, in memory, at `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "campaign", str(folder)]
    subprocess.run(mount, check=True, capture_output=True, text=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True, capture_output=True)
