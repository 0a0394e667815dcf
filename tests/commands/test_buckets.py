"""The commands on buckets: train, kill, resume, evaluate, predict and convert, with every file in the bucket."""

import json
import pathlib
import re
import signal
import time

import numpy as np
import pytest
from etils import epath
from PIL import Image

from convert.checkpoints import files
from convert.weights import to_torch
from experiments.storage import emulators
from seaformer_jax import paths
from seaformer_jax.training import checkpoint, checkpoint_files, trained
from tests import forked, toys
from tests.paths import REPOSITORY
from tests.training import small

STEPS = 24


def command(module: str, *arguments: object, **environment: str) -> forked.Command:
    environment = {**emulators.used(), **environment}
    return forked.Command(module, arguments, merged=True, environment=environment)


def run(module: str, *arguments: object, status: int = 0, **environment: str) -> str:
    """Returns the output of a command that ends with `status`."""
    return small.finish(command(module, *arguments, **environment), status)


def training(workdir: object, data: object, cache: str, **changes: object) -> list[object]:
    """The command line of a run of the nano recipe on the images in `data`."""
    changes = {
        "compilation_cache": cache,
        "data.source": "folder",
        "data.root": data,
        "eval.every": 0,
        **changes,
    }
    options = [f"--config.{key}={value}" for key, value in changes.items()]
    return [f"--config={REPOSITORY}/tests/training/nano.py", f"--workdir={workdir}", *options]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> pathlib.Path:
    """An image folder of three classes."""
    folder, draw = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 5)):
        for label in range(3):
            (folder / split / f"class{label}").mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 80, (36, 40, 3)) + 80 * label
                Image.fromarray(pixels.astype(np.uint8)).save(
                    folder / split / f"class{label}" / f"{number}.png"
                )
    return folder


@pytest.fixture(scope="module")
def reference(tmp_path_factory, data, compile_cache) -> pathlib.Path:
    """The workdir of a local run that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("reference") / "run"
    run("seaformer_jax.train", *training(workdir, data, compile_cache))
    return workdir


def upload(folder: pathlib.Path, target: epath.Path) -> epath.Path:
    for file in folder.rglob("*"):
        if file.is_file():
            (target / file.relative_to(folder).as_posix()).write_bytes(file.read_bytes())
    return target


def kill_after_a_checkpoint(process: forked.Command, workdir: epath.Path) -> int:
    """Kills a run once it has a checkpoint; returns the step of its last one."""
    while process.poll() is None and not checkpoint.saved_steps(workdir):
        time.sleep(0.05)
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    output = small.finish(process, -signal.SIGKILL)
    step = checkpoint.saved_steps(workdir)[-1]
    assert step < STEPS, output
    return step


def same_run(workdir: epath.Path, reference: pathlib.Path) -> None:
    """Every array and every scalar but speeds are equal, bit for bit."""
    for use_ema in (False, True):
        expected = checkpoint.load_weights(reference, use_ema)
        assert expected[0] == STEPS
        assert small.equal(checkpoint.load_weights(workdir, use_ema), expected)
    sums = [
        checkpoint_files.read_json(run / "checkpoints" / str(STEPS), "checksums")
        for run in (workdir, reference)
    ]
    assert sums[0] == sums[1] and len(sums[0]) > 100
    for name in ("train/loss", "train/grad_norm", "train/lr", "val/loss", "val/top1", "val/images"):
        assert small.curve(workdir, name) == small.curve(reference, name) != {}
    assert list(small.curve(workdir, "train/loss")) == list(range(1, STEPS + 1))


@pytest.mark.slow
def test_killed_then_resumed(bucket, data, reference, compile_cache):
    """A killed run goes on as if nothing had happened, with workdir and images in the bucket."""
    there = epath.Path(bucket) / "killed"
    workdir, images = there / "run", upload(data, there / "data")
    arguments = training(workdir, images, compile_cache)
    step = kill_after_a_checkpoint(command("seaformer_jax.train", *arguments), workdir)
    said = run("seaformer_jax.train", *arguments, "--config.log_every=1")
    assert f"resuming at step {step} of {STEPS}" in said and "a bucket has no file locks" in said
    assert "Traceback" not in said and "Exception" not in said
    same_run(workdir, reference)
    assert checkpoint.saved_steps(workdir) == checkpoint.saved_steps(reference)
    assert list((workdir / "tensorboard").iterdir())
    assert json.loads((workdir / "config.json").read_text())["data"]["root"] == str(images)


@pytest.mark.slow
def test_a_copy_is_a_workdir(bucket, data, reference, compile_cache):
    """A local run goes on in a bucket and back; what changes is appended to a file."""
    workdir = upload(reference, epath.Path(bucket) / "copied")
    for rows, value in enumerate((3, 4), 1):
        said = run("seaformer_jax.train", *training(workdir, data, compile_cache, log_every=value))
        assert "nothing to do" in said
        assert len((workdir / "config_changes.jsonl").read_text().splitlines()) == rows
    with paths.local_copy(workdir) as copy:
        same_run(copy, reference)


@pytest.mark.slow
def test_evaluate_and_predict(bucket, data, reference, tmp_path):
    there = epath.Path(bucket) / "used"
    workdir, images = upload(reference, there / "run"), upload(data, there / "data")
    run("seaformer_jax.evaluate", f"--workdir={workdir}", f"--out={there}/results")
    results = json.loads((there / "results/results.json").read_text())
    assert (results["step"], results["top1"]) == (STEPS, small.curve(reference, "val/top1")[STEPS])
    assert (there / "results/per_class.md").exists()
    assert (there / "results/confusion_matrix.png").read_bytes()[1:4] == b"PNG"

    run(
        "seaformer_jax.predict",
        f"--workdir={workdir}",
        f"--images={images}/val/*/*.png",
        f"--out={there}/out",
    )
    run(
        "seaformer_jax.predict", f"--workdir={reference}", f"--images={data}/val/*/*.png", f"--out={tmp_path}"
    )
    ours, theirs = (
        [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
        for folder in (there / "out", tmp_path)
    )
    assert len(ours) == 15 and [row["top"] for row in ours] == [row["top"] for row in theirs]
    names = [
        [row["image"].removeprefix(str(root)) for row in rows]
        for root, rows in ((images, ours), (data, theirs))
    ]
    assert names[0] == names[1]
    assert (there / "out/contact_sheet.png").exists()


@pytest.mark.slow
def test_convert_export_and_start_from_weights(bucket, data, reference, compile_cache):
    """Weights out of a bucket and back, into a bundle that runs, and into another run."""
    pytest.importorskip("onnxruntime")
    there = epath.Path(bucket) / "converted"
    workdir, images, out = upload(reference, there / "run"), upload(data, there / "data"), there / "bundle"
    weights = there / "model.pth"
    run("convert.to_torch", f"--workdir={workdir}", f"--out={weights}")
    toys.register()
    assert small.equal(
        files.read_state_dict(weights), to_torch(trained.load(reference).model, batches_tracked=STEPS)
    )
    recipe, _, *changes = training(there, data, compile_cache)
    run("convert.from_torch", f"--checkpoint={weights}", recipe, f"--workdir={there}/back", *changes)
    assert small.equal(
        checkpoint.load_weights(there / "back", False)[1:], checkpoint.load_weights(reference, True)[1:]
    )
    changes += [
        "--config.total_steps=1",
        "--config.optim.schedule.warmup_steps=0",
        f"--config.init_from={weights}",
    ]
    said = run("seaformer_jax.train", recipe, f"--workdir={there}/next", *changes)
    assert f"init_from: {weights}" in said

    run("convert.export", f"--weights={weights}", "--format=onnx", "--input-size=64x64", f"--out={out}")
    run("convert.run", out, f"--images={images}/val/*/*.png", f"--out={there}/predicted")
    assert len((there / "predicted/predictions.jsonl").read_text().splitlines()) == 15
    (out / "model.json").unlink()
    arguments = [f"--weights={weights}", "--format=onnx", "--input-size=64x64", f"--out={out}"]
    assert "holds files other than a bundle" in run("convert.export", *arguments, status=2)


@pytest.mark.parametrize(
    "scheme", ["s3", pytest.param("gs", marks=pytest.mark.slow)]
)  # gcsfs tries for 30 s.
def test_an_unreachable_bucket_is_one_line(open_bucket, scheme):
    path = f"{open_bucket(scheme)}/run"
    nowhere = emulators.variables(scheme, port=1)
    said = run("seaformer_jax.predict", "--workdir=x", f"--images={path}", "--out=y", status=2, **nowhere)
    assert said.startswith(f"error: {path}: the bucket cannot be used (") and len(said.splitlines()) == 1
    assert said.endswith("check the network, its name and your credentials\n")


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_wrong_credentials_are_one_line(open_bucket, scheme):
    open_bucket(scheme)
    # moto checks credentials from the first request on; it knows no key.
    with emulators.emulator(scheme, REJECT="1", INITIAL_NO_AUTH_ACTION_COUNT="0") as port:
        path, there = f"{scheme}://bucket/run", emulators.variables(scheme, port)
        said = run("seaformer_jax.predict", "--workdir=x", f"--images={path}", "--out=y", status=2, **there)
    assert said.startswith(f"error: {path}: the bucket cannot be used (") and len(said.splitlines()) == 1
    assert re.search("Invalid Credentials|InvalidAccessKeyId|Forbidden|does not exist in our records", said)
