"""Times what a run does with its storage, on a local folder and in emulated buckets on loopback.

    python -m experiments.storage

Writes results/storage.json and results/storage.md. The emulators answer within milliseconds but serve one request at
a time, so the table shows the cost of the software and of its requests, not that of a real bucket.
"""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator

import jax
from etils import epath

from experiments import measure
from experiments.storage import emulators
from seaformer_jax import config as configs
from seaformer_jax import create_model, paths
from seaformer_jax.models.variables import split_model
from seaformer_jax.training import optim
from seaformer_jax.training import state as states
from seaformer_jax.training.checkpoint import Checkpoints, load_weights
from seaformer_jax.training.scalars import Reporter
from seaformer_jax.training.state import TrainState

_MODEL, _ROUNDS, _ROWS, _IMAGES, _IMAGE_BYTES = "seaformer_tiny", 3, 50, 100, 110_000
_PLACES = {"local folder": "", "gs:// (gcp-storage-emulator)": "gs", "s3:// (moto)": "s3"}


def main() -> None:
    """Measures all places in turn and writes the table."""
    state = _state()
    with contextlib.ExitStack() as stack:
        folders = {place: stack.enter_context(_folder(scheme)) for place, scheme in _PLACES.items()}
        works = {place: _works(folder, state) for place, folder in folders.items()}
        rows = [_row(name, {place: works[place][name] for place in works}) for name in works["local folder"]]
    size = sum(array.nbytes for array in jax.tree.leaves(state))
    figures = {"model": _MODEL, "state_mb": size / 1e6, "arrays": len(jax.tree.leaves(state)), "rows": rows}
    measure.write("storage", figures)
    _write_table(figures)


@contextlib.contextmanager
def _folder(scheme: str) -> Iterator[epath.Path]:
    """Yields a local folder, or one in a bucket of a new emulator."""
    if not scheme:
        with tempfile.TemporaryDirectory() as folder:
            yield epath.Path(folder)
        return
    with emulators.emulator(scheme) as port:
        os.environ.update(emulators.variables(scheme, port))
        emulators.make_bucket(scheme, port, "bucket")
        yield paths.of(f"{scheme}://bucket/storage")


def _state() -> TrainState:
    config = configs.default()
    model = create_model(_MODEL, task="classification", num_classes=1000, seed=0)
    optimizer, _ = optim.create(config.optim, config.total_steps, split_model(model)[0])
    return states.create(model, optimizer, use_ema=True)


def _works(folder: epath.Path, state: TrainState) -> dict[str, Callable[[], object]]:
    """Returns what is measured, by name."""
    checkpoints = Checkpoints(folder / "run", configs.default().checkpoint, "top1")
    steps = iter(range(1, 10**6))
    reporter = Reporter(folder / "run", 0)
    images = [folder / f"data/{number}.jpg" for number in range(_IMAGES)]
    for image in images:
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(bytes(_IMAGE_BYTES))

    def save() -> None:
        checkpoints.save(state, next(steps), {}, {"top1": 0.0})
        checkpoints.wait()

    def metrics() -> None:
        for step in range(_ROWS):
            reporter.scalars(step, {"train/loss": 1.0, "train/lr": 0.1})
        reporter.sync()

    return {
        f"save a checkpoint of {_MODEL}": save,
        "restore it": lambda: checkpoints.restore(state),
        "read its averaged weights": lambda: load_weights(folder / "run"),
        f"write {_ROWS} rows of metrics and events": metrics,
        f"read {_IMAGES} images of {_IMAGE_BYTES // 1000} kB": lambda: [
            paths.read_bytes(image) for image in images
        ],
    }


def _row(name: str, places: dict[str, Callable[[], object]]) -> dict[str, object]:
    seconds = measure.interleaved(places, _ROUNDS, warm_up=1)
    local = seconds["local folder"]
    ratios = {
        f"{place} / local": value / local for place, value in seconds.items() if place != "local folder"
    }
    return {"work": name, **{f"{place}, ms": 1000 * value for place, value in seconds.items()}, **ratios}


def _write_table(figures: dict) -> None:
    text = f"""# Storage: a local folder and buckets

`python -m experiments.storage`. Medians of {_ROUNDS} rounds in which the places take turns; the ratios are the
figures to read. A checkpoint has {figures["state_mb"]:.0f} MB in {figures["arrays"]} arrays. The buckets are
emulators on loopback, which serve one request at a time: they show what the software costs, not what a network does.
The two cores were busy with other work, as the seconds of the local folder show.

{measure.table(figures["rows"])}
"""
    (measure.RESULTS / "storage.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
