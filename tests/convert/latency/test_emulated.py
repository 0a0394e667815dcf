"""The runners of all runtimes under emulation: as the device "qemu", and as phones and boards behind adb and ssh.

They need `make arm-setup` (0.7 GB) and the exporters of the formats, which `make test` has for ONNX alone.
"""

import json

import numpy as np
import pytest

from convert import bundle_folder
from convert.bundle import Bundle
from convert.export import parity
from convert.export.exporter import Export
from convert.export.request import Request
from convert.labels import boxes, class_map
from convert.latency.devices import qemu, registry, runners, toolchain
from convert.latency.devices.base import STEPS
from convert.latency.turns import measure
from convert.runtimes import registry as runtimes
from seaformer_jax.errors import UserError
from tests import toys
from tests.convert import small_bundles
from tests.convert.alive import write_detector
from tests.convert.latency import device_standins as standins

# Task, output and type of input.
CASES = [
    ("classification", "logits", "float32"),
    ("segmentation", "logits8", "float32"),
    ("segmentation", "logits", "float32"),
    ("segmentation", "labels", "float32"),
    ("segmentation", "logits8", "uint8"),
    ("detection", "head", "float32"),
]
pytestmark = pytest.mark.skipif(
    not (toolchain.BUILD / "runners").exists(), reason="no emulator: `make arm-setup` makes one"
)


def write_bundle(folder, kind: str, task: str, output: str, input_type: str) -> Bundle:
    """Exports a small model of random weights; skips the test if the format has no such models."""
    runtime = runtime_of(kind)
    toys.register()
    if input_type not in runtime.INPUT_TYPES or (output == "labels" and not runtime.LABELS_IN_GRAPH):
        pytest.skip(f"{kind} has no {output} of {input_type}")
    if task == "detection":
        weights = write_detector(folder, small_bundles.NAMES, small_bundles.SIZE)
        with bundle_folder.writing(folder / "b") as temporary:
            Export(Request(weights, kind, small_bundles.SIZE)).run(temporary)
        return Bundle.open(folder / "b")
    network = small_bundles.network(task)
    return small_bundles.write(folder, network, task, kind, output, input_type=input_type)


def runtime_of(kind: str):
    """Returns the runtime of a format; skips the test if it is not installed."""
    try:
        return runtimes.find(kind)
    except UserError as error:
        pytest.skip(str(error))


def expected_result(bundle: Bundle, output: np.ndarray) -> list[np.ndarray]:
    """Returns what the post-processing makes of a model's output, in NumPy."""
    match bundle.output:
        case "head":
            decoding = boxes.Decoding(tuple(bundle.input_size), **bundle.decoding)
            found = boxes.numpy_decode(output[0], decoding, boxes.Photograph(tuple(bundle.input_size)))
            return [found.boxes, found.scores, found.labels]
        case "labels":
            return [output[0]]
        case "logits8":
            return [class_map.numpy_argmax_upsample(np.ascontiguousarray(output[0]), bundle.input_size)]
    return [output[0].argmax(-1)]


def read_result(bundle: Bundle, path) -> list[np.ndarray]:
    """Returns what the post-processing of a runner wrote."""
    if bundle.task == "detection":
        found = np.fromfile(path, [("boxes", "4f4"), ("scores", "f4"), ("labels", "i4")])
        return [found[name] for name in found.dtype.names]
    if bundle.task == "classification":
        return [np.fromfile(path, np.int32)[0]]
    return [np.fromfile(path, np.uint8).reshape(bundle.input_size)]


@pytest.mark.slow
@pytest.mark.parametrize(("task", "output", "input_type"), CASES)
@pytest.mark.parametrize("kind", runners.RUNTIMES)
def test_counting(tmp_path, kind, task, output, input_type):
    bundle = write_bundle(tmp_path, kind, task, output, input_type)
    device = registry.find("qemu", threads=1)
    device.check(bundle)
    job = device.job(bundle)
    samples = job.measure(warmup=1, runs=2)
    assert all(values[0] > 0 for step in STEPS for values in [samples[step]])
    for values in samples.values():
        assert values[0] == pytest.approx(values[1], rel=0.01, abs=0.01)
    found, expected = job.output(), bundle.reference()[1]
    assert parity.on_device(found, expected, bundle.output, bundle.precision)["ok"]
    results = read_result(bundle, job.folder / "result")
    for result, right in zip(results, expected_result(bundle, found), strict=True):
        np.testing.assert_allclose(result, right, rtol=1e-5, atol=1e-3)
    job.close()


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["adb", "ssh:user@board"])
@pytest.mark.parametrize("kind", runners.RUNTIMES)
def test_phones_and_boards(tmp_path, monkeypatch, kind, spec):
    """The device is this machine, and the emulator runs the aarch64 program there."""
    bundle = write_bundle(tmp_path, kind, "segmentation", "logits8", "float32")
    real, here = runners.folder(kind), tmp_path / "build" / "runners" / kind
    here.mkdir(parents=True)
    for path in real.iterdir():
        (here / path.name).symlink_to(path)
    card = runners.card(kind)
    libraries = f"LD_LIBRARY_PATH={toolchain.environment()['LD_LIBRARY_PATH']}"
    card["start"] = ["env", libraries, *map(str, qemu.emulator()), *card["start"]]
    (here / "runner.json").unlink()
    (here / "runner.json").write_text(json.dumps(card))
    monkeypatch.setattr(toolchain, "BUILD", tmp_path / "build")
    device = standins.Device(tmp_path / "device", monkeypatch)
    report = measure(registry.find(spec, threads=1), [bundle], runs=10)
    (record,) = report["bundles"]
    assert record["parity"]["ok"] and record["parity"]["agreement"] == 1
    assert all(len(record["samples"][step]) == 10 for step in STEPS)
    assert device.calls.read_text().count("push" if spec == "adb" else "tar -x") == 2
